"""Maps a pure function over tasks: by threads here, for the codecs release Python's lock, or by Dask's workers elsewhere.

Both look only a little ahead of who reads the results. The first failure ends it.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from importlib import import_module
from itertools import islice
from typing import Any, TypeVar

from alexnet.errors import DataError
from pipelines.runtime import environment
from pipelines.runtime.errors import Unreachable

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 2  # tasks a worker
_SECONDS = 30  # for the scheduler to answer, and for a first worker to come
_own = threading.local()


class Cancelled(Exception):
    """Ends a task whose result nobody waits for any more."""


def raise_if_cancelled() -> None:
    """Called by a long task between its images: raises Cancelled when another task failed, or the user gave up."""
    stop: threading.Event | None = getattr(_own, "stop", None)
    if stop and stop.is_set():
        raise Cancelled


def map_ordered(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    """The results in the tasks' order."""
    with closing(_workers()) as workers:
        waiting: deque[Any] = deque()
        for task in tasks:
            waiting.append(workers.submit(function, task))
            if len(waiting) >= _AHEAD * workers.count():
                yield workers.result(waiting.popleft())
        while waiting:
            yield workers.result(waiting.popleft())


def map_unordered(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    """The results as they come, so that one long task holds nothing up."""
    rest = iter(tasks)
    with closing(_workers()) as workers:
        running = {workers.submit(function, task) for task in islice(rest, _AHEAD * workers.count())}
        while running:
            done = workers.finished(running)
            running -= done
            for future in done:
                yield workers.result(future)
            room = max(0, _AHEAD * workers.count() - len(running))
            running |= {workers.submit(function, task) for task in islice(rest, room)}


def _workers() -> "_Threads | _Cluster":
    address = environment.dask()
    return _Threads(environment.workers()) if address is None else _Cluster(address)


class _Threads:
    """This machine's."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(count, initializer=setattr, initargs=(_own, "stop", self._stop))

    def count(self) -> int:
        return self._count

    def submit(self, function: Callable[[T], R], task: T) -> Any:
        return self._pool.submit(function, task)

    def finished(self, running: set[Any]) -> set[Any]:
        """Those that are done, at least one."""
        return set(wait(running, return_when=FIRST_COMPLETED).done)

    def result(self, future: "Future[R]") -> R:
        return future.result()

    def close(self) -> None:
        self._stop.set()
        self._pool.shutdown(cancel_futures=True)


class _Cluster:
    """Dask's, which come and go: tasks of a lost one are done again by another. With none left for a while, it ends."""

    def __init__(self, address: str) -> None:
        self._address = address
        try:
            self._dask: Any = import_module("distributed")
        except ModuleNotFoundError:
            raise DataError(
                "ALEXNET_DASK: the package distributed is not installed; install this project's extra `dask`, or unset it"
            ) from None
        try:
            self._client = self._dask.Client(address, timeout=_SECONDS, set_as_default=False)
        except (OSError, TimeoutError) as error:
            raise Unreachable(
                f"ALEXNET_DASK: no scheduler answers at {address} within {_SECONDS} seconds ({error}); "
                "start one, or unset it to use this machine's cores"
            ) from None
        try:
            self._await_workers()
        except BaseException:
            self.close()
            raise

    def count(self) -> int:
        """Threads of the workers that are there now."""
        with self._named():
            return sum(self._client.nthreads().values()) or 1

    def submit(self, function: Callable[[T], R], task: T) -> Any:
        with self._named():
            return self._client.submit(function, task, pure=False)

    def finished(self, running: set[Any]) -> set[Any]:
        """Those that are done, at least one."""
        with self._named(), self._client.as_current():
            while True:
                try:
                    return set(self._dask.wait(running, timeout=_SECONDS, return_when="FIRST_COMPLETED").done)
                except TimeoutError:
                    self._await_workers()

    def result(self, future: Any) -> Any:
        with self._named():
            while not future.done():
                self.finished({future})
            return future.result()

    def close(self) -> None:
        self._client.close()

    def _await_workers(self) -> None:
        try:
            self._client.wait_for_workers(1, timeout=_SECONDS)
        except TimeoutError:
            raise Unreachable(
                f"ALEXNET_DASK: the scheduler at {self._address} has had no workers for {_SECONDS} seconds; "
                f"start some: `dask worker {self._address}`"
            ) from None

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Dask's own failures as errors that say what to do."""
        try:
            yield
        except self._dask.KilledWorker as error:
            raise DataError(
                f"ALEXNET_DASK: {error.allowed_failures + 1} workers died of one task, the last at "
                f"{error.last_worker.address}; see its log, give workers more memory or fewer threads, and run again"
            ) from None
        except (ModuleNotFoundError, RuntimeError) as error:
            if isinstance(error, RuntimeError) and "deserialization" not in str(error):
                raise
            raise DataError(
                f"ALEXNET_DASK: scheduler or workers cannot load the task ({error.__cause__ or error}); "
                "start them with this project's environment and code"
            ) from None
        except (CancelledError, self._dask.comm.CommClosedError):
            raise Unreachable(
                f"ALEXNET_DASK: the scheduler at {self._address} was lost; start it and run again, what is finished is kept"
            ) from None
