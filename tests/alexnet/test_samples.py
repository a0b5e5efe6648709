"""alexnet/samples.py."""

from pathlib import Path

import numpy as np
import pytest

from alexnet.cache import ShardCache
from alexnet.errors import DataError
from alexnet.samples import Samples
from tests import shardmaker
from tests.shardmaker import CLASSES, SIDE_PX

MADE = shardmaker.make([3, 5, 2])


def test_keys_and_labels_run_through_the_shards(tmp_path: Path) -> None:
    samples = MADE.samples(tmp_path)
    assert len(samples) == 10
    assert samples.keys == [f"k{i:05}" for i in range(10)]
    assert samples.labels.tolist() == [i % CLASSES for i in range(10)]


def test_a_sample_is_found_by_its_index(tmp_path: Path) -> None:
    assert MADE.samples(tmp_path).locate(np.array([0, 2, 3, 7, 8, 9])) == ([0, 0, 1, 1, 2, 2], [0, 2, 0, 4, 0, 1])


def test_nothing_is_fetched_before_it_is_needed(tmp_path: Path) -> None:
    samples = MADE.samples(tmp_path)
    samples.decode(1, 0, np.empty((SIDE_PX, SIDE_PX, 3), np.uint8))
    assert [path.name for path in tmp_path.glob("*.tar")] == [f"{MADE.shards[1].sha256}.tar"]


def test_no_more_shards_stay_open_than_the_cache_holds(tmp_path: Path) -> None:
    samples = MADE.samples(tmp_path, limit_bytes=2 * max(shard.bytes for shard in MADE.shards))
    for number in (0, 1, 2):
        samples.open(number)
    assert list(samples._opened) == [1, 2]


def test_a_resident_split_reads_the_same(tmp_path: Path) -> None:
    samples = Samples(MADE.shards, ShardCache(tmp_path, MADE.fetch), side_px=SIDE_PX, classes=CLASSES, resident=True)
    assert samples.keys == MADE.samples(tmp_path).keys


def test_a_split_without_shards_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="the split has no shards; run the shard stage again"):
        Samples([], ShardCache(tmp_path, MADE.fetch), side_px=SIDE_PX, classes=CLASSES)
