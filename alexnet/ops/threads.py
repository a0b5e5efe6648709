"""Threads that work ahead of a consumer: shards fetched, samples decoded, images read from a far store."""

import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")
JOIN_SECONDS = 3.0


class Prefetcher(Iterator[R], Generic[T, R]):
    """The results of a function for every item, in the items' order, computed by threads before they are asked for.

    An exception of the function, or of the iterator of items, is raised when its turn comes: the same one for any number of
    threads. Used in a `with` statement, whose end stops the threads.

    Args:
        function: Called by the threads, for several items at a time.
        items: The next one is taken when a thread is free for it, by one thread at a time.
        workers: Number of threads; with 0 the consumer calls the function. They are daemons: one that waits for a silent store
            does not keep the process from ending.
        has_room: Whether an item may be started beside those in flight, whose results were not consumed yet. It is asked again
            after every result that is asked for or consumed, and by `wake`.
    """

    def __init__(
        self,
        function: Callable[[T], R],
        items: Iterable[T],
        workers: int,
        has_room: Callable[[Collection[T], T], bool],
    ) -> None:
        self._function = function
        self._items = iter(items)
        self._has_room = has_room
        self._next: list[T] = []  # the item that waits for room
        self._in_flight: deque[T] = deque()
        self._results: deque[Future[R]] = deque()  # of the items in flight
        self._end: BaseException | None = None  # what the iterator of items, or has_room, raised
        self._stopped = False
        self._change = threading.Condition()
        self._threads = [threading.Thread(target=self._run, name="prefetch", daemon=True) for _ in range(workers)]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> "Prefetcher[T, R]":
        return self

    def __exit__(self, *exception: object) -> None:
        """Stops the threads. Waits for calls in progress, up to JOIN_SECONDS in all."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        deadline = time.monotonic() + JOIN_SECONDS
        for thread in self._threads:
            thread.join(max(0.0, deadline - time.monotonic()))

    def __next__(self) -> R:
        if not self._threads:
            return self._function(next(self._items))
        self.wait()
        if not self._results:
            assert self._end is not None
            raise self._end
        try:
            return self._results[0].result()
        finally:
            with self._change:
                self._results.popleft()
                self._in_flight.popleft()
                self._change.notify_all()

    def wait(self, seconds: float | None = None) -> bool:
        """Waits for the next result, at most so many seconds if given. Whether `next` returns or raises at once."""
        if not self._threads:
            return True
        with self._change:
            self._change.notify_all()
            started = self._change.wait_for(lambda: self._results or self._end or self._stopped, seconds)
            first = list(self._results)[:1]
        return bool(started) and not wait(first, seconds).not_done

    def wake(self) -> None:
        """Has the threads ask again whether there is room."""
        with self._change:
            self._change.notify_all()

    def _run(self) -> None:
        while task := self._take():
            item, result = task
            try:
                result.set_result(self._function(item))
            except BaseException as error:  # noqa: BLE001 - it is raised to the consumer
                result.set_exception(error)
            del task, item, result  # what they refer to is not kept while this thread waits

    def _take(self) -> "tuple[T, Future[R]] | None":
        """The next item, once there is room for it, and the place of its result; None at the end."""
        with self._change:
            while not self._stopped and self._end is None:
                try:
                    if not self._next:
                        self._next.append(next(self._items))
                    if self._has_room(self._in_flight, self._next[0]):
                        self._in_flight.append(self._next.pop())
                        self._results.append(Future())
                        self._change.notify_all()
                        return self._in_flight[-1], self._results[-1]
                    self._change.wait()
                except BaseException as error:  # noqa: BLE001 - it is raised to the consumer
                    self._end = error
                    self._change.notify_all()
            return None
