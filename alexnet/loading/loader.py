"""Batches of images in a keyed order, decoded ahead by threads.

Decoding releases the interpreter's lock, so threads share one batch and nothing is copied between processes. Every sample is
decoded straight into its row of the batch.
"""

import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from alexnet.errors import DataError
from alexnet.loading.dataset import ShardDataset
from alexnet.loading.prefetch import ShardPrefetcher
from alexnet.loading.sampler import BatchSampler, Order
from alexnet.ops.threads import Prefetcher

_ROWS = 8  # samples a thread decodes at a time
_AHEAD = 3  # batches decoded before they are asked for
_PATIENCE_SECONDS = 240.0  # without progress, then the next batch is an error

T = TypeVar("T")
Images = UInt8[np.ndarray, "n side side 3"]


@dataclass(frozen=True)
class Batch:
    """Images 0..255 in RGB, their labels, and their global sample indices."""

    images: UInt8[Tensor, "n side side 3"]
    labels: Int64[Tensor, " n"]
    samples: Int64[Tensor, " n"]


@dataclass(frozen=True)
class EncodedBatch:
    """JPEGs for a decoder on the device, their labels, and their global sample indices.

    side_px: of every image. on_host: the same batch by the loader's own decoder, which names the sample that cannot be decoded,
    or skips it.
    """

    jpegs: list[UInt8[Tensor, " _"]]
    labels: Int64[Tensor, " n"]
    samples: Int64[Tensor, " n"]
    side_px: int
    on_host: Callable[[], Batch]


class Loader:
    """Batches of a split, epoch by epoch.

    Order and content of every batch depend on the sampler and the epoch alone: not on the number of workers, timing, or the
    step from which an epoch is resumed.

    Args:
        dataset: The split.
        sampler: Which samples every step reads.
        workers: Threads that decode; 0 decodes, and fetches shards, in the consumer's thread.
        on_corrupt: `error` raises at a sample that cannot be decoded; `skip` puts the next good sample of its shard in its
            place and counts it in `skipped`: batches keep their sizes, epochs their steps.
        pin_memory: Batches in page-locked memory, from which a GPU copies while it computes; take them by way of
            `device.to_device`, which keeps a batch's memory until its copy is over.

    Raises:
        DataError: the cache cannot hold the shards that are mixed at a time.
    """

    def __init__(
        self,
        dataset: ShardDataset,
        sampler: BatchSampler,
        *,
        workers: int,
        on_corrupt: Literal["error", "skip"] = "error",
        pin_memory: bool = False,
    ) -> None:
        _check_cache_limit(dataset, sampler.window_shards if sampler.shuffle else 1)
        self.dataset = dataset
        self.sampler = sampler
        self.workers = workers
        self.skipped: dict[int, str] = {}  # global sample indices that were skipped, and why
        self._skip = on_corrupt == "skip"
        self._counts = [shard.samples for shard in dataset.shards]
        self._largest = -(-sampler.batch_size // sampler.replicas)  # batch
        self._pin_memory = pin_memory

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last one holds what is left."""
        return self.sampler.steps(len(self.dataset))

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[Batch, None, None]:
        """This replica's batches of an epoch from `first_step` on; what came before it is not read.

        Closing the iterator early ends its threads.

        Raises:
            DataError: from the iterator, a sample or a shard that cannot be used, or no progress for 240 seconds.
        """
        return self.read(self.sampler.batches(self._counts, epoch, first_step))

    def read(self, batches: list[Order]) -> Generator[Batch, None, None]:
        """Batches of these samples, by their global indices, in this order; see `epoch`."""
        return self._run(batches, self._new_batch, BatchBuilder.decoded)

    def epoch_encoded(self, epoch: int, first_step: int = 0) -> Generator[EncodedBatch, None, None]:
        """As `epoch`, with the JPEGs of the shards, for a decoder on the device."""
        return self._run(self.sampler.batches(self._counts, epoch, first_step), BatchBuilder, self._encoded)

    def _new_batch(self, samples: Order) -> "BatchBuilder":
        shape = (len(samples), self.dataset.side_px, self.dataset.side_px, 3)
        return BatchBuilder(samples, torch.empty(shape, dtype=torch.uint8, pin_memory=self._pin_memory).numpy())

    def _run(
        self, batches: list[Order], begin: "Callable[[Order], BatchBuilder]", finish: "Callable[[BatchBuilder], T]"
    ) -> Generator[T, None, None]:
        most = _AHEAD * -(-self._largest // _ROWS)
        self.dataset.release()
        try:
            with ShardPrefetcher(self.dataset, batches, self.dataset.cache.streams if self.workers else 0) as shards:

                def has_room(in_flight: Collection[_Chunk], chunk: _Chunk) -> bool:
                    return len(in_flight) < most and shards.fits(chunk.step)

                with Prefetcher(self._fill, _chunks(batches, begin), self.workers, has_room) as chunks:
                    for step in range(len(batches)):
                        shards.advance(step)
                        yield finish(self._next(chunks))
        finally:
            self.dataset.release()

    def _next(self, chunks: "Prefetcher[_Chunk, _Chunk]") -> "BatchBuilder":
        """The next batch, filled. Raises what is wrong with the first of its samples that cannot be used."""
        while True:
            fetched, since = -1, time.monotonic()
            patience = _PATIENCE_SECONDS + self.dataset.cache.away_seconds
            while not chunks.wait(1.0):
                if self.dataset.cache.fetched_bytes != fetched:
                    fetched, since = self.dataset.cache.fetched_bytes, time.monotonic()
                elif time.monotonic() - since > patience:
                    raise DataError(
                        f"loader: no progress for {patience:.0f} s, waiting for "
                        f"{', '.join(self.dataset.being_opened) or 'a decoder'}; check the store and run again"
                    )
            chunk = next(chunks)
            if chunk.end == len(chunk.batch.samples):
                return chunk.batch

    def _fill(self, chunk: "_Chunk") -> "_Chunk":
        batch = chunk.batch
        numbers, rows = self.dataset.shards_and_rows(batch.samples[chunk.start : chunk.end])
        for slot, number, row in zip(range(chunk.start, chunk.end), numbers, rows, strict=True):
            try:
                self._put(batch, slot, number, row)
            except DataError as error:
                if not self._skip:
                    raise
                self._replace(batch, slot, number, row, error)
        return chunk

    def _put(self, batch: "BatchBuilder", slot: int, number: int, row: int) -> None:
        """Puts a sample, by its shard's number and its row there, into its slot in a batch."""
        if batch.images is None:
            batch.jpegs[slot], batch.labels[slot] = self.dataset.read_jpeg(number, row)
        else:
            batch.labels[slot] = self.dataset.decode(number, row, batch.images[slot])

    def _replace(self, batch: "BatchBuilder", slot: int, number: int, row: int, error: DataError) -> None:
        """Puts the next sample of the shard that can be decoded in the place of one that cannot."""
        first = int(self.dataset.firsts[number])
        count = self.dataset.shards[number].samples
        for step in range(1, count):
            other = (row + step) % count
            batch.samples[slot] = first + other
            try:
                self._put(batch, slot, number, other)
            except DataError:
                continue
            self.skipped[first + row] = str(error)
            return
        raise error

    def _encoded(self, batch: "BatchBuilder") -> EncodedBatch:
        labels, samples = torch.from_numpy(batch.labels), torch.from_numpy(batch.samples)
        return EncodedBatch(batch.jpegs, labels, samples, self.dataset.side_px, partial(self._on_host, batch.samples))

    def _on_host(self, samples: Order) -> Batch:
        side_px = self.dataset.side_px
        batch = BatchBuilder(samples, np.empty((len(samples), side_px, side_px, 3), np.uint8))
        self._fill(_Chunk(0, batch, 0, len(samples)))
        return batch.decoded()


@dataclass(frozen=True)
class Encoded:
    """A loader's batches as JPEGs, which `device.to_device` decodes on the device."""

    loader: Loader

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.loader.steps_per_epoch

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[EncodedBatch]:
        """This replica's batches of an epoch from `first_step` on, see `Loader.epoch`."""
        return self.loader.epoch_encoded(epoch, first_step)


class BatchBuilder:
    """A batch that is being filled: with decoded images where there is memory for them, with JPEGs otherwise."""

    def __init__(self, samples: Order, images: Images | None = None) -> None:
        self.samples = samples.copy()
        self.labels = np.empty(len(samples), np.int64)
        self.images = images
        self.jpegs = [torch.empty(0, dtype=torch.uint8)] * (len(samples) if images is None else 0)

    def decoded(self) -> Batch:
        """The batch; its tensors share this one's memory."""
        assert self.images is not None
        return Batch(torch.from_numpy(self.images), torch.from_numpy(self.labels), torch.from_numpy(self.samples))


@dataclass(frozen=True)
class _Chunk:
    """Rows start..end-1 of the batch of a step."""

    step: int
    batch: BatchBuilder
    start: int
    end: int


def _chunks(batches: list[Order], begin: Callable[[Order], BatchBuilder]) -> Iterator[_Chunk]:
    """All rows in order; a batch without any has one empty chunk."""
    for step, samples in enumerate(batches):
        batch = begin(samples)
        for start in range(0, max(1, len(samples)), _ROWS):
            yield _Chunk(step, batch, start, min(start + _ROWS, len(samples)))


def _check_cache_limit(dataset: ShardDataset, window_shards: int | None) -> None:
    """Raises where the cache cannot hold the shards that are mixed at a time: every sample would fetch a shard."""
    limit = dataset.cache.limit_bytes
    sizes = sorted((shard.bytes for shard in dataset.shards), reverse=True)[:window_shards]
    if limit is not None and sum(sizes) > limit:
        raise DataError(
            f"samples: {len(sizes)} shards of together {sum(sizes):,} bytes are mixed at a time, the cache may hold {limit:,}; "
            "raise the cache's limit, or lower window_shards"
        )
