"""alexnet/loading/dataset.py."""

import ctypes
import mmap
import os
import time
from pathlib import Path

import numpy as np
import pytest

from alexnet.errors import DataError
from alexnet.loading.dataset import ShardDataset
from alexnet.shards.cache import ShardCache
from tests.support import sample_shards
from tests.support.sample_shards import CLASSES, SIDE_PX, SampleShards

MADE = sample_shards.make([3, 5, 2])


def test_keys_and_labels_run_through_the_shards(tmp_path: Path) -> None:
    samples = MADE.dataset(tmp_path)
    assert len(samples) == 10
    assert sample_shards.keys(samples) == [f"k{i:05}" for i in range(10)]
    assert sample_shards.labels(samples) == [i % CLASSES for i in range(10)]


def test_a_sample_is_found_by_its_index(tmp_path: Path) -> None:
    assert MADE.dataset(tmp_path).shards_and_rows(np.array([0, 2, 3, 7, 8, 9])) == ([0, 0, 1, 1, 2, 2], [0, 2, 0, 4, 0, 1])


def test_nothing_is_fetched_before_it_is_needed(tmp_path: Path) -> None:
    samples = MADE.dataset(tmp_path)
    samples.decode(1, 0, np.empty((SIDE_PX, SIDE_PX, 3), np.uint8))
    assert [path.name for path in tmp_path.glob("*.tar")] == [f"{MADE.shards[1].sha256}.tar"]


def test_no_more_shards_stay_open_than_the_cache_holds(tmp_path: Path) -> None:
    samples = MADE.dataset(tmp_path, limit_bytes=2 * max(shard.bytes for shard in MADE.shards))
    for number in (0, 1, 2):
        samples.open(number)
    assert list(samples._opened) == [1, 2]


def in_memory(mapped: memoryview) -> float:
    """The share of a mapped file's pages that are in the system's page cache."""
    pages = (ctypes.c_ubyte * -(-len(mapped) // mmap.PAGESIZE))()
    start = np.frombuffer(mapped, np.uint8).ctypes.data
    assert ctypes.CDLL(None).mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(mapped)), pages) == 0
    return sum(page & 1 for page in pages) / len(pages)


def test_the_whole_of_a_resident_split_is_read_into_memory(tmp_path: Path) -> None:
    """Shards of 16 MB: more than the system reads of one piece of advice."""
    body = sample_shards.tar([("a.jpg", sample_shards.jpeg(0) + bytes(16 << 20)), ("a.cls", b"0")])
    made = SampleShards({"s.tar": body}, [sample_shards.describe("s.tar", body, [0])])
    path = tmp_path / f"{made.shards[0].sha256}.tar"

    def opened(*, resident: bool) -> memoryview:
        cache = ShardCache(tmp_path, made.fetch)
        return ShardDataset(made.shards, cache, side_px=SIDE_PX, classes=CLASSES, resident=resident).open(0).bytes

    opened(resident=False)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if in_memory(opened(resident=False)) > 0.5:
        pytest.skip("this file system keeps its files in memory")  # there is nothing to read ahead then
    mapped = opened(resident=True)
    deadline = time.monotonic() + 10
    while in_memory(mapped) < 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert in_memory(mapped) == 1


def test_a_split_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the split has no shards; run the shard stage again"):
        ShardDataset([], ShardCache(tmp_path, MADE.fetch), side_px=SIDE_PX, classes=CLASSES)
