"""alexnet/ops/threads.py."""

import threading
import time
from collections.abc import Callable, Collection, Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.ops.threads import Prefetcher


def at_most(count: int) -> Callable[[Collection[int], int], bool]:
    return lambda in_flight, item: len(in_flight) < count


def square(item: int) -> int:
    time.sleep(0.001 * (item % 3))
    return item * item


@given(st.integers(0, 20), st.integers(0, 5), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_results_come_in_the_order_of_the_items(count: int, workers: int, most: int) -> None:
    with Prefetcher(square, range(count), workers, at_most(most)) as results:
        assert list(results) == [item * item for item in range(count)]
        assert list(results) == []


@pytest.mark.parametrize("workers", [0, 1, 4])
def test_an_exception_is_raised_at_its_turn(workers: int) -> None:
    def fail(item: int) -> int:
        if item >= 2:
            raise ValueError(f"item {item}")
        time.sleep(0.05)
        return item

    with Prefetcher(fail, range(5), workers, at_most(9)) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(ValueError, match="item 2"):
            next(results)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_exception_of_the_items_iterator_is_raised_after_the_results_before_it(workers: int) -> None:
    def items() -> Iterator[int]:
        yield 3
        raise MemoryError("no more")

    with Prefetcher(square, items(), workers, at_most(9)) as results:
        assert next(results) == 9
        with pytest.raises(MemoryError, match="no more"):
            next(results)


def test_an_exception_of_has_room_is_raised_and_not_waited_for() -> None:
    def has_room(in_flight: Collection[int], item: int) -> bool:
        if item == 2:
            raise KeyError(item)
        return True

    with Prefetcher(square, range(5), 2, has_room) as results:
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(KeyError):
            next(results)


@pytest.mark.parametrize(("workers", "most"), [(1, 3), (4, 3), (4, 1)])
def test_no_more_items_are_started_than_there_is_room_for(workers: int, most: int) -> None:
    started: list[int] = []
    with Prefetcher(started.append, range(12), workers, at_most(most)) as results:
        for consumed in range(12):
            deadline = time.monotonic() + 10
            while len(started) < min(12, consumed + most) and time.monotonic() < deadline:
                time.sleep(0.001)
            assert len(started) == min(12, consumed + most)
            next(results)


def test_several_threads_work_at_the_same_time() -> None:
    meet = threading.Barrier(4, timeout=20)
    with Prefetcher(lambda item: meet.wait(), range(4), 4, at_most(4)) as results:
        assert sorted(results) == [0, 1, 2, 3]


def test_whether_there_is_room_is_asked_again_when_woken() -> None:
    opened = threading.Event()
    seen: list[int] = []

    def has_room(in_flight: Collection[int], item: int) -> bool:
        return opened.is_set()

    with Prefetcher(seen.append, range(3), 2, has_room) as results:
        assert not results.wait(0.05)
        assert seen == []
        opened.set()
        results.wake()
        assert results.wait(20.0)
        assert len(list(results)) == 3


def test_waiting_for_a_result_has_a_limit() -> None:
    go = threading.Event()
    with Prefetcher(lambda item: go.wait(20), [0], 1, at_most(1)) as results:
        assert not results.wait(0.05)
        go.set()
        assert results.wait(20.0)
        assert next(results) is True
        assert results.wait()


def test_leaving_it_ends_the_threads_and_starts_nothing_more() -> None:
    before = set(threading.enumerate())
    started: list[int] = []
    with Prefetcher(started.append, range(100), 3, at_most(5)) as results:
        next(results)
        assert set(threading.enumerate()) > before
    assert set(threading.enumerate()) == before
    assert len(started) < 100
