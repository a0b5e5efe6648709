"""alexnet/loading/sampler.py."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.loading.sampler import BatchSampler, Order


def order(counts: list[int], *, seed: int, epoch: int, shuffle: bool, window_shards: int | None = None) -> Order:
    return BatchSampler(4, seed, shuffle, window_shards).order(counts, epoch)


COUNTS = st.lists(st.integers(1, 12), min_size=1, max_size=7)
WINDOW = st.none() | st.integers(1, 8)


@given(COUNTS, WINDOW, st.integers(0, 5), st.integers(0, 5))
@settings(max_examples=100, deadline=None)
def test_an_epoch_holds_every_sample_once(counts: list[int], window: int | None, seed: int, epoch: int) -> None:
    found = order(counts, seed=seed, epoch=epoch, shuffle=True, window_shards=window)
    assert sorted(found.tolist()) == list(range(sum(counts)))


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    first = order([50, 50], seed=1, epoch=0, shuffle=True)
    assert np.array_equal(first, order([50, 50], seed=1, epoch=0, shuffle=True))
    assert not np.array_equal(first, order([50, 50], seed=1, epoch=1, shuffle=True))
    assert not np.array_equal(first, order([50, 50], seed=2, epoch=0, shuffle=True))


def test_without_shuffling_the_order_is_the_manifests() -> None:
    assert order([2, 3], seed=1, epoch=9, shuffle=False).tolist() == [0, 1, 2, 3, 4]


@given(COUNTS, st.integers(1, 7))
@settings(max_examples=60, deadline=None)
def test_a_window_is_over_before_the_next_begins(counts: list[int], window: int) -> None:
    """So that a cache of a few shards never fetches one twice in an epoch."""
    firsts = np.cumsum([0, *counts])
    shards = np.searchsorted(firsts, order(counts, seed=3, epoch=1, shuffle=True, window_shards=window), side="right") - 1
    if window < len(counts):
        opened = list(dict.fromkeys(shards.tolist()))
        for start in range(0, len(opened), window):
            inside = opened[start : start + window]
            span = [place for place, shard in enumerate(shards.tolist()) if shard in inside]
            assert span == list(range(span[0], span[-1] + 1))


def test_a_window_of_every_shard_is_the_full_permutation() -> None:
    whole = order([4, 5, 6], seed=1, epoch=0, shuffle=True)
    assert np.array_equal(whole, order([4, 5, 6], seed=1, epoch=0, shuffle=True, window_shards=3))


def test_windows_meet_in_other_companies_every_epoch() -> None:
    """The quality of a windowed order: over 40 epochs of 16 shards in windows of 4, every two shards have met."""
    met = set()
    for epoch in range(40):
        shards = order([1] * 16, seed=1, epoch=epoch, shuffle=True, window_shards=4).reshape(4, 4)
        met |= {(int(a), int(b)) for window in shards for a in window for b in window if a < b}
    assert len(met) == 16 * 15 // 2


@given(COUNTS, st.integers(1, 9), st.integers(1, 8), st.data())
def test_the_parts_of_all_replicas_in_order_are_the_batches(
    counts: list[int], batch_size: int, replicas: int, data: st.DataObject
) -> None:
    whole = BatchSampler(batch_size, seed=1, shuffle=True)
    steps = whole.steps(sum(counts))
    first_step = data.draw(st.integers(0, steps))
    split = [
        BatchSampler(batch_size, 1, shuffle=True, replica=replica, replicas=replicas).batches(counts, 2, first_step)
        for replica in range(replicas)
    ]
    batches = whole.batches(counts, 2)
    assert [len(batch) for batch in batches[:-1]] == [batch_size] * (steps - 1)
    assert np.concatenate(batches).tolist() == whole.order(counts, 2).tolist()
    for parts, batch in zip(zip(*split, strict=True), batches[first_step:], strict=True):
        assert np.concatenate(parts).tolist() == batch.tolist()
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_the_last_step_takes_what_is_left() -> None:
    assert [BatchSampler(4, seed=1, shuffle=False).steps(total) for total in (0, 1, 4, 5, 8)] == [0, 1, 1, 2, 2]


def test_after_the_last_step_nothing_is_left() -> None:
    assert BatchSampler(4, seed=1, shuffle=False).batches([5], 0, 2) == []
