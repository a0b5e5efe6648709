"""One split's samples by their global index, over cached shards: keys, labels and decoded images."""

import mmap
import resource
import threading
from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import simplejpeg
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from alexnet.errors import DataError
from alexnet.shards.cache import CachedShard, ShardCache
from alexnet.shards.manifest import Shard

_READ_AHEAD = 128 << 10  # bytes per madvise: Linux reads at most the device's readahead for each call

Pixels = UInt8[np.ndarray, "side side 3"]


class ShardDataset:
    """The samples of one split, by a global index that counts through the shards in the manifest's order. Shards open on use.

    Args:
        side_px: Side of every image; another size is an error.
        classes: Labels are below it.
        resident: Advises the system to read whole shards into the page cache as they are opened: right when the split fits in
            memory. Under memory pressure the system may drop and read them again.
    """

    def __init__(
        self,
        shards: Sequence[Shard],
        cache: ShardCache,
        *,
        side_px: int,
        classes: int,
        resident: bool = False,
    ) -> None:
        if not shards:
            raise DataError("samples: the split has no shards; run the shard stage again")
        self.shards = tuple(shards)
        self.side_px = side_px
        self.cache = cache
        self.firsts: Int64[np.ndarray, " shards_and_one"] = np.concatenate(
            [[0], np.cumsum([shard.samples for shard in shards])]
        )
        self._classes = classes
        self._resident = resident
        self._opened: OrderedDict[int, CachedShard] = OrderedDict()
        self.most_open = _most_open(self.shards, cache.limit_bytes)  # shards that stay mapped at a time
        self._failed: dict[int, Exception] = {}
        self._lock = threading.Lock()
        self._opening = [threading.Lock() for _ in shards]

    def __len__(self) -> int:
        return int(self.firsts[-1])

    @property
    def being_opened(self) -> list[str]:
        """Names of the shards that are being opened, for errors of those that wait for them."""
        return [shard.name for shard, lock in zip(self.shards, self._opening, strict=True) if lock.locked()]

    def open(self, number: int) -> CachedShard:
        """The shard with this number, fetched if need be.

        Raises what the cache raises, and raises it again until `release`: threads that wait for the same shard try once.
        """
        cached = self._find_open(number)
        if cached is None:
            with self._opening[number]:
                if number in self._failed:
                    raise self._failed[number]
                try:
                    cached = self._find_open(number) or self._open(number)
                except Exception as error:
                    self._failed[number] = error
                    raise
        return cached

    def release(self) -> None:
        """Called between epochs: shards that failed may be tried again, and those that a limited cache may remove are unmapped.

        A mapped file keeps its room on the disk: with another split in the same cache, up to twice the limit.
        """
        with self._lock:
            self._failed.clear()
            if self.cache.limit_bytes is not None:
                self._opened.clear()

    def shards_and_rows(self, samples: Int64[np.ndarray, " n"]) -> tuple[list[int], list[int]]:
        """For every global sample index, its shard's number and its row in that shard."""
        numbers = np.searchsorted(self.firsts, samples, side="right") - 1
        return numbers.tolist(), (samples - self.firsts[numbers]).tolist()

    def decode(self, number: int, row: int, out: Pixels) -> int:
        """Decodes a sample into `out`, as RGB; the result is its label.

        Raises:
            DataError: it does not decode, or is not of the size the manifest says. Names shard, key and offset.
        """
        cached = self.open(number)
        try:
            image = simplejpeg.decode_jpeg(cached.jpeg(row), "RGB", buffer=out)
        except ValueError as error:
            raise self._corrupt(cached, row, str(error)) from error
        if image.shape != out.shape:
            height, width, _ = image.shape
            raise self._corrupt(cached, row, f"it is {width}x{height} pixels, not {self.side_px}x{self.side_px}")
        return int(cached.index.labels[row])

    def read_jpeg(self, number: int, row: int) -> tuple[UInt8[Tensor, " _"], int]:
        """A sample's JPEG, in memory of its own, and its label."""
        cached = self.open(number)
        return torch.from_numpy(np.frombuffer(cached.jpeg(row), np.uint8).copy()), int(cached.index.labels[row])

    def _corrupt(self, cached: CachedShard, row: int, what: str) -> DataError:
        index = cached.index
        return DataError(
            f"{cached.shard.name}: the image of key {index.keys[row]} at byte {index.offsets[row]} "
            f"({index.sizes[row]:,} bytes) cannot be used: {what}; "
            "run the shard stage again, or let training leave it out (train.on_corrupt: skip)"
        )

    def _find_open(self, number: int) -> CachedShard | None:
        with self._lock:
            if number in self._opened:
                self._opened.move_to_end(number)
            return self._opened.get(number)

    def _open(self, number: int) -> CachedShard:
        with self._lock:  # before the next is fetched: a mapped file takes room on the disk though it was evicted
            self._close_all_but(self.most_open - 1)
        cached = self.cache.open(self.shards[number])
        labels = cached.index.labels
        if len(labels) and int(labels.max()) >= self._classes:
            raise DataError(f"{cached.shard.name}: holds label {labels.max()}, the manifest has {self._classes} classes")
        if self._resident and isinstance(cached.bytes.obj, mmap.mmap):
            _read_ahead(cached.bytes.obj)
        with self._lock:
            self._opened[number] = cached
            self._close_all_but(self.most_open)  # several threads may have opened one at the same time
        return cached

    def _close_all_but(self, count: int) -> None:
        """Forgets all but the last used; one that somebody still reads is unmapped when that is done. The lock is held."""
        while len(self._opened) > count:
            self._opened.popitem(last=False)


def _read_ahead(mapped: mmap.mmap) -> None:
    for start in range(0, len(mapped), _READ_AHEAD):
        mapped.madvise(mmap.MADV_WILLNEED, start, min(_READ_AHEAD, len(mapped) - start))


def _most_open(shards: Sequence[Shard], limit_bytes: int | None) -> int:
    """How many shards are kept mapped: as many as the cache holds, and half of the files a process may open."""
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = len(shards) if limit_bytes is None else limit_bytes // max(1, *(shard.bytes for shard in shards))
    return max(1, min(most, files // 2 if files != resource.RLIM_INFINITY else most))
