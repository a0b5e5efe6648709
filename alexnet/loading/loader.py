"""Batches of images in a keyed order, decoded ahead by threads.

Decoding releases the interpreter's lock, so threads share one batch and nothing is copied between processes. Every sample is
decoded straight into its row of the batch; a batch's memory is used again once nobody refers to it.
"""

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from alexnet.errors import DataError
from alexnet.loading import sampler
from alexnet.loading.dataset import Pixels, ShardDataset
from alexnet.loading.prefetch import ShardsAhead, join

__all__ = ["Batch", "Encoded", "EncodedBatch", "Loader"]

_ROWS = 8  # samples a thread takes at a time

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


@dataclass(frozen=True)
class Cropping:
    """Crops that are cut while an image is still in the processor's cache: a fifth less memory to fill and to copy to a device.

    Training takes whole images: where it computes, cropping costs a GPU nothing and a CPU a hundredth of a step at most.

    places: top and left in pixels, and whether the crop is flipped, of every sample in an epoch.
    """

    side_px: int
    places: Callable[[int, Int64[Tensor, " n"]], tuple[Tensor, Tensor, Tensor]]


class Loader:
    """Batches of a split, epoch by epoch.

    Order and content of every batch depend on (seed, epoch, shuffle, window_shards, batch_size) alone: not on workers,
    replicas, timing, or where an epoch was taken up again.

    Args:
        samples: The split.
        batch_size: Samples of a step over all replicas.
        seed: The run's seed.
        shuffle: Keyed order; False gives the manifest's.
        workers: Threads that decode; 0 does everything in the caller's thread.
        window_shards: See `sampler.order`.
        replica: Which part of every batch this loader gives; the two ranks of a tower pair pass the same.
        replicas: Number of parts.
        on_corrupt: `error` raises at a sample that cannot be decoded; `skip` puts the next good sample of its shard in its
            place and counts it in `skipped`: batches keep their sizes, epochs their steps.
        cropping: Batches hold these crops; None leaves images whole.
        ahead: Batches decoded before they are asked for.
        streams: Shards fetched at a time before they are needed.
        pin_memory: Batches in page-locked memory, from which a GPU copies while it computes; take them by way of
            `device_feed.to_device`, which keeps a batch's memory until its copy is over.
        patience_seconds: Without any progress for so long, the next batch is an error.

    Raises:
        DataError: the cache cannot hold the shards that are mixed at a time.
    """

    def __init__(
        self,
        samples: ShardDataset,
        batch_size: int,
        *,
        seed: int,
        shuffle: bool,
        workers: int,
        window_shards: int | None = None,
        replica: int = 0,
        replicas: int = 1,
        on_corrupt: Literal["error", "skip"] = "error",
        cropping: Cropping | None = None,
        ahead: int = 3,
        streams: int = 8,
        pin_memory: bool = False,
        patience_seconds: float = 240.0,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}")
        if not 0 <= replica < replicas:
            raise ValueError(f"replica must be in 0..{replicas - 1}, got {replica}")
        _check_room(samples, window_shards if shuffle else 1)
        self.samples = samples
        self.batch_size = batch_size
        self.workers = workers
        self.ahead = ahead
        self.streams = streams
        self.patience_seconds = patience_seconds
        self.skipped: dict[int, str] = {}  # global sample indices that were skipped, and why
        self._seed, self._shuffle, self._window_shards = seed, shuffle, window_shards
        self._replica, self._replicas = replica, replicas
        self._skip = on_corrupt == "skip"
        most = -(-batch_size // replicas)
        self._cropping = cropping
        self._whole = threading.local()  # a thread's image before it is cropped
        side_px = cropping.side_px if cropping else samples.side_px
        self._buffers = BufferPool((most, side_px, side_px, 3), ahead + 4, pin_memory)

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch; the last one holds what is left."""
        return sampler.steps(len(self.samples), self.batch_size)

    def order(self, epoch: int) -> sampler.Order:
        """The global sample indices of an epoch, in order, over all replicas."""
        counts = [shard.samples for shard in self.samples.shards]
        return sampler.order(counts, seed=self._seed, epoch=epoch, shuffle=self._shuffle, window_shards=self._window_shards)

    def epoch(self, epoch: int, first_step: int = 0) -> Generator[Batch, None, None]:
        """This replica's batches of an epoch from `first_step` on; what came before it is not read.

        Closing the iterator early ends its threads.

        Raises:
            ValueError: the epoch has no such step; its number of steps is allowed, and leaves nothing.
            DataError: from the iterator, a sample or a shard that cannot be used, or no progress for `patience_seconds`.
        """
        return self._run(self._shares(epoch, first_step), partial(self.begin, epoch=epoch), Filling.filled)

    def epoch_encoded(self, epoch: int, first_step: int = 0) -> Generator[EncodedBatch, None, None]:
        """As `epoch`, with whole images as they are in the shard, for a decoder on the device."""
        assert self._cropping is None, "who crops has decoded"
        return self._run(self._shares(epoch, first_step), partial(Filling, epoch=epoch), self._encoded)

    def fill(self, batch: "Filling", start: int, end: int) -> None:
        """Decodes the rows start..end-1 of a batch."""
        numbers, rows = self.samples.shards_and_rows(batch.samples[start:end])
        for place, number, row in zip(range(start, end), numbers, rows, strict=True):
            try:
                self._put(batch, place, number, row)
            except DataError as error:
                if not self._skip:
                    raise
                self._replace(batch, place, number, row, error)

    def begin(self, share: sampler.Order, epoch: int) -> "Filling":
        """An empty batch for these samples."""
        batch = Filling(share, epoch, self._buffers.take(len(share)))
        batch.places = self._places(batch, slice(None))
        return batch

    def _shares(self, epoch: int, first_step: int) -> list[sampler.Order]:
        """This replica's samples of every step."""
        if not 0 <= first_step <= self.steps_per_epoch:
            raise ValueError(f"first_step must be in 0..{self.steps_per_epoch}, got {first_step}")
        order = self.order(epoch)
        starts = range(first_step * self.batch_size, len(order), self.batch_size)
        return [sampler.share(order[start : start + self.batch_size], self._replica, self._replicas) for start in starts]

    def _run(
        self, shares: list[sampler.Order], begin: "Callable[[sampler.Order], Filling]", finish: "Callable[[Filling], T]"
    ) -> Generator[T, None, None]:
        """Batches that are begun, filled and finished, one for every share."""
        filled = self._in_place(shares, begin) if self.workers == 0 else self._by_threads(shares, begin)
        self.samples.release()
        try:
            yield from map(finish, filled)
        finally:
            filled.close()
            self.samples.release()

    def _in_place(
        self, shares: list[sampler.Order], begin: "Callable[[sampler.Order], Filling]"
    ) -> Generator["Filling", None, None]:
        for share in shares:
            batch = begin(share)
            self.fill(batch, 0, len(share))
            yield batch

    def _by_threads(
        self, shares: list[sampler.Order], begin: "Callable[[sampler.Order], Filling]"
    ) -> Generator["Filling", None, None]:
        crew = _Crew(self, shares, begin)
        try:
            for step in range(len(shares)):
                yield crew.wait(step)
        finally:
            crew.stop()

    def _encoded(self, batch: "Filling") -> EncodedBatch:
        labels, samples = torch.from_numpy(batch.labels), torch.from_numpy(batch.samples)
        return EncodedBatch(batch.jpegs, labels, samples, self.samples.side_px, partial(self._on_host, batch))

    def _on_host(self, encoded: "Filling") -> Batch:
        """What an encoded batch holds, decoded here."""
        side_px = self.samples.side_px
        batch = Filling(encoded.samples, encoded.epoch, np.empty((len(encoded.samples), side_px, side_px, 3), np.uint8))
        self.fill(batch, 0, len(batch.samples))
        return batch.filled()

    def _replace(self, batch: "Filling", place: int, number: int, row: int, error: DataError) -> None:
        """Puts the next sample of the shard that decodes in the place of one that does not."""
        first = int(self.samples.firsts[number])
        count = self.samples.shards[number].samples
        for step in range(1, count):
            other = (row + step) % count
            batch.samples[place] = first + other
            batch.places[place : place + 1] = self._places(batch, slice(place, place + 1))
            try:
                self._put(batch, place, number, other)
            except DataError:
                continue
            self.skipped[first + row] = str(error)
            return
        raise error

    def _places(self, batch: "Filling", rows: slice) -> list[tuple[int, int, bool]]:
        """Top, left and flip of these rows' crops; none where images stay whole."""
        if self._cropping is None:
            return []
        drawn = self._cropping.places(batch.epoch, torch.from_numpy(batch.samples[rows]))
        return list(zip(*(part.tolist() for part in drawn), strict=True))

    def _put(self, batch: "Filling", place: int, number: int, row: int) -> None:
        """Puts a sample of a shard into its place in a batch."""
        if batch.images is None:
            batch.jpegs[place], batch.labels[place] = self.samples.encoded(number, row)
        elif batch.places:
            batch.labels[place] = self._crop(batch.images[place], number, row, *batch.places[place])
        else:
            batch.labels[place] = self.samples.decode(number, row, batch.images[place])

    def _crop(self, crop: Pixels, number: int, row: int, top: int, left: int, flip: bool) -> int:
        """Decodes a sample and cuts this crop out of it; the result is its label."""
        whole: Pixels | None = getattr(self._whole, "image", None)
        if whole is None:
            whole = self._whole.image = cached_image(self.samples.side_px)
        label = self.samples.decode(number, row, whole, "BGR" if flip else "RGB")
        if flip:
            _mirror(whole, top, left, crop)
        else:
            crop[:] = whole[top : top + len(crop), left : left + len(crop)]
        return label


@dataclass(frozen=True)
class Encoded:
    """A loader's batches as they are in the shards: `device_feed.to_device` decodes them there."""

    loader: Loader

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        return self.loader.steps_per_epoch

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[EncodedBatch]:
        """This replica's batches of an epoch from `first_step` on, see `Loader.epoch`."""
        return self.loader.epoch_encoded(epoch, first_step)


class Filling:
    """A batch while it is being filled: with decoded images where there is memory for them, with JPEGs otherwise."""

    def __init__(self, share: sampler.Order, epoch: int, images: Images | None = None) -> None:
        self.epoch = epoch
        self.places: list[tuple[int, int, bool]] = []  # of the crops; none where images stay whole
        self.samples = share.copy()
        self.labels = np.empty(len(share), np.int64)
        self.images = images
        self.jpegs = [torch.empty(0, dtype=torch.uint8)] * (len(share) if images is None else 0)
        self.taken = 0  # rows that a thread has taken
        self.missing = len(share)  # rows that are not decoded yet
        self.errors: dict[int, DataError] = {}  # by first row

    def filled(self) -> Batch:
        """The batch; its tensors share this one's memory."""
        assert self.images is not None
        return Batch(torch.from_numpy(self.images), torch.from_numpy(self.labels), torch.from_numpy(self.samples))


class BufferPool:
    """Memory of batches, used again once nothing refers to it.

    Every batch gets an array object of its own over the memory, to which all that is derived from the batch refers: tensors,
    arrays and views of them. When the interpreter collects that object, the memory returns to the pool.

    Args:
        shape: Of the largest batch's images.
        most: Unused buffers that are kept for reuse.
        pin_memory: Page-locked memory, from which a GPU copies while it computes.
    """

    def __init__(self, shape: tuple[int, int, int, int], most: int, pin_memory: bool) -> None:
        self._shape = shape
        self._pin_memory = pin_memory
        self._free: deque[Tensor] = deque(maxlen=most)

    def take(self, count: int) -> Images:
        """Uninitialized memory for so many images."""
        try:
            memory = self._free.pop()
        except IndexError:
            memory = self._allocate()
        images: Images = memory[:count].numpy()  # numpy's views of it refer to it: only a view of an array skips to the base
        weakref.finalize(images, self._free.append, memory).atexit = False
        return images

    def _allocate(self) -> Tensor:
        if self._pin_memory:
            return torch.empty(self._shape, dtype=torch.uint8, pin_memory=True)
        return torch.from_numpy(np.empty(self._shape, np.uint8))


class _Crew:
    """The threads of one epoch: those that decode, some batches ahead, and those that fetch the shards that come next."""

    def __init__(self, loader: Loader, shares: list[sampler.Order], begin: Callable[[sampler.Order], Filling]) -> None:
        self._loader = loader
        self._shares = shares
        self._begin = begin
        self._batches: dict[int, Filling] = {}
        self._next = 0  # the step that rows are taken from
        self._given = 0  # the step that the consumer waits for
        self._rows_done = 0
        self._error: Exception | None = None
        self._stopped = False
        self._change = threading.Condition()
        self._fetching = ShardsAhead(loader.samples, shares, loader.streams, self._fail)
        self._threads = [threading.Thread(target=self._decode, daemon=True) for _ in range(loader.workers)]
        for thread in self._threads:
            thread.start()

    def wait(self, step: int) -> Filling:
        """The batch of a step. Raises what stopped a thread."""
        self._fetching.advance(step)
        with self._change:
            self._given = step
            self._change.notify_all()
            seen, since = -1, time.monotonic()
            while self._error is None and (step not in self._batches or self._batches[step].missing):
                self._change.wait(1.0)
                if (progress := self._rows_done + self._loader.samples.cache.fetched_bytes) != seen:
                    seen, since = progress, time.monotonic()
                elif time.monotonic() - since > self._loader.patience_seconds:
                    raise DataError(
                        f"loader: no progress for {self._loader.patience_seconds:.0f} s, waiting for "
                        f"{', '.join(self._loader.samples.opening) or 'a decoder'}; check the store and run again"
                    )
            if self._error is not None:
                raise self._error
            batch = self._batches.pop(step)
            if batch.errors:
                raise batch.errors[min(batch.errors)]
            return batch

    def stop(self) -> None:
        """Ends the threads."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        join([*self._fetching.stop(), *self._threads])

    def _fail(self, error: Exception) -> None:
        with self._change:
            self._error = self._error or error
            self._stopped = True
            self._change.notify_all()

    def _decode(self) -> None:
        try:
            while (work := self._take()) is not None:
                batch, start, end = work
                error = self._fill(batch, start, end)
                with self._change:
                    batch.errors |= {} if error is None else {start: error}
                    batch.missing -= end - start
                    self._rows_done += end - start
                    if not batch.missing:
                        self._change.notify_all()
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits for the batch
            self._fail(error)

    def _fill(self, batch: Filling, start: int, end: int) -> DataError | None:
        """Decodes rows; what is wrong with them waits for its turn, so that the error is the same for any number of threads."""
        try:
            self._loader.fill(batch, start, end)
        except DataError as error:
            return error
        return None

    def _take(self) -> tuple[Filling, int, int] | None:
        """The next rows to decode, when their batch is not too far ahead; None at the end."""
        with self._change:
            while not self._stopped and self._next < len(self._shares):
                if self._next > self._given + self._loader.ahead or not self._fetching.fits(self._next):
                    self._change.wait()
                    continue
                batch = self._batches.get(self._next)
                if batch is None:
                    batch = self._batches[self._next] = self._begin(self._shares[self._next])
                start = batch.taken
                batch.taken = end = min(start + _ROWS, len(batch.samples))
                if end == len(batch.samples):
                    self._next += 1
                    self._change.notify_all()  # an empty share is done with this
                if start < end:
                    return batch, start, end
            return None


def cached_image(side_px: int) -> Pixels:
    """Memory for an image that is read again at once.

    libjpeg-turbo writes rows that begin at a multiple of 32 bytes past the processor's cache, straight to memory: right for a
    batch, but decoding and cropping then take up to a fifth longer. These rows begin 16 bytes off.
    """
    size = side_px * side_px * 3
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 32 + 16
    return memory[start : start + size].reshape(side_px, side_px, 3)


def _mirror(whole: Pixels, top: int, left: int, out: UInt8[np.ndarray, "crop crop 3"]) -> None:
    """Copies a crop of an image of BGR pixels as RGB, mirrored.

    That is every row backwards, byte by byte; whole words, swapped, take a third of the time and a tenth of a flip of pixels.
    """
    height, width, _ = out.shape
    word = 4 if width % 4 == 0 else 1
    rows = whole.reshape(len(whole), -1)[top : top + height, 3 * left : 3 * (left + width)]
    out.reshape(height, -1).view(f"<u{word}")[...] = rows.view(f">u{word}")[:, ::-1]


def _check_room(samples: ShardDataset, window_shards: int | None) -> None:
    """Raises where the cache could not hold the shards that are mixed at a time: every sample would fetch a shard."""
    limit = samples.cache.limit_bytes
    sizes = sorted((shard.bytes for shard in samples.shards), reverse=True)[:window_shards]
    if limit is not None and sum(sizes) > limit:
        raise DataError(
            f"samples: {len(sizes)} shards of together {sum(sizes):,} bytes are mixed at a time, the cache may hold {limit:,}; "
            "raise the cache's limit, or lower window_shards"
        )
