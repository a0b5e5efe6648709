"""Which shards an epoch uses when, and how far ahead they are opened."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet.loading.dataset import ShardDataset
from alexnet.loading.prefetch import ShardPrefetcher, shard_uses
from alexnet.loading.sampler import BatchSampler, Order
from tests.support import sample_shards

MADE = sample_shards.make([9, 4, 11, 7])
TOTAL = 31
LARGEST = max(shard.bytes for shard in MADE.shards)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> ShardDataset:
    return MADE.dataset(tmp_path_factory.mktemp("cache"))


def batches_of(batch_size: int, first: int = 0, window: int | None = None) -> list[Order]:
    """The batches of an epoch without its first samples."""
    rest = BatchSampler(5, 7, True, window_shards=window).order([shard.samples for shard in MADE.shards], 0)[first:]
    return [rest[start : start + batch_size] for start in range(0, len(rest), batch_size)]


@given(st.integers(1, 12), st.integers(0, TOTAL), st.sampled_from([None, 1, 2]))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_shard_is_used_from_its_first_sample_to_its_last(
    dataset: ShardDataset, batch_size: int, first: int, window: int | None
) -> None:
    batches = batches_of(batch_size, first, window)
    steps: dict[int, list[int]] = {}
    for step, batch in enumerate(batches):
        for number in dataset.shards_and_rows(batch)[0]:
            steps.setdefault(number, []).append(step)
    found = shard_uses(dataset, batches)
    assert {use.number: (use.first_step, use.last_step) for use in found} == {
        number: (min(all_steps), max(all_steps)) for number, all_steps in steps.items()
    }
    assert [use.first_step for use in found] == sorted(use.first_step for use in found)


def test_an_epoch_without_samples_uses_no_shard(dataset: ShardDataset) -> None:
    assert shard_uses(dataset, []) == []
    assert shard_uses(dataset, [np.empty(0, np.int64)]) == []


def test_without_a_limit_every_step_fits(dataset: ShardDataset) -> None:
    batches = batches_of(5)
    with ShardPrefetcher(dataset, batches, workers=0) as shards:
        assert all(shards.fits(step) for step in range(len(batches)))


@pytest.mark.parametrize("shards_that_fit", [1, 2, 3])
def test_no_step_fits_whose_shards_would_remove_those_in_use(shards_that_fit: int, tmp_path: Path) -> None:
    limit = shards_that_fit * LARGEST
    dataset = MADE.dataset(tmp_path, limit)
    batches = batches_of(3, window=1)
    uses = shard_uses(dataset, batches)
    with ShardPrefetcher(dataset, batches, workers=0) as shards:
        for now in range(len(batches)):
            shards.advance(now)
            for step in range(now, len(batches)):
                needed = sum(use.bytes for use in uses if use.last_step >= now and use.first_step <= step)
                assert shards.fits(step) == (step == now or needed <= limit), (now, step)


def test_a_shard_that_cannot_be_opened_ends_no_prefetching(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = MADE.dataset(tmp_path)
    opened: list[int] = []

    def fails(open_shard: Callable[[int], object]) -> Callable[[int], object]:
        def opens(number: int) -> object:
            opened.append(number)
            if len(opened) == 1:
                raise OSError("no disk")
            return open_shard(number)

        return opens

    monkeypatch.setattr(dataset, "open", fails(dataset.open))
    with ShardPrefetcher(dataset, batches_of(5), workers=1) as shards:
        while len(opened) < len(MADE.shards):
            shards.advance(0)
    assert sorted(opened) == [0, 1, 2, 3]
