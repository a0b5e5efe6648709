"""Maps a function over tasks by threads of this process, or by the workers of the Dask cluster that ALEXNET_DASK names.

Threads suffice on one machine: the codecs release Python's lock while they work. Only a few tasks more than there are workers
are taken from the iterator at a time, and the first failure ends the map.
"""

import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib import import_module
from itertools import islice
from typing import Any, TypeVar

from alexnet.errors import DataError
from pipelines.runtime import environment
from pipelines.runtime.errors import Unreachable

T = TypeVar("T")
R = TypeVar("R")
_TASKS_PER_WORKER = 2
_SECONDS = 30  # for the scheduler to answer, and for a first worker to connect to it
_local = threading.local()


class Cancelled(Exception):
    """Ends a task whose result is no longer needed."""


def raise_if_cancelled() -> None:
    """Raises Cancelled in a task of a map that has failed or was closed. Long tasks call it between their images."""
    cancelled: threading.Event | None = getattr(_local, "cancelled", None)
    if cancelled and cancelled.is_set():
        raise Cancelled


def map_unordered(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    """The results in the order in which they are ready."""
    rest = iter(tasks)
    with _open_pool() as pool:
        running: set[Future[R]] = set()
        while True:
            room = max(0, _TASKS_PER_WORKER * pool.size() - len(running))
            running |= {pool.submit(function, task) for task in islice(rest, room)}
            if not running:
                return
            while not (done := wait(running, _SECONDS, FIRST_COMPLETED).done):
                pool.check()
            running -= done
            for future in done:
                yield future.result()


@dataclass(frozen=True)
class _Pool:
    """Where tasks run. size: the number of threads there now. check: raises an error if there are none."""

    submit: Callable[..., "Future[Any]"]
    size: Callable[[], int]
    check: Callable[[], None]


def _open_pool() -> AbstractContextManager[_Pool]:
    address = environment.dask()
    return _open_threads(environment.workers()) if address is None else _open_cluster(address)


@contextmanager
def _open_threads(count: int) -> Iterator[_Pool]:
    cancelled = threading.Event()
    threads = ThreadPoolExecutor(count, initializer=setattr, initargs=(_local, "cancelled", cancelled))
    try:
        yield _Pool(threads.submit, lambda: count, lambda: None)
    finally:
        cancelled.set()
        threads.shutdown(cancel_futures=True)


@contextmanager
def _open_cluster(address: str) -> Iterator[_Pool]:
    """Dask's workers, which may connect and go: the scheduler gives the tasks of a lost one to another.

    Dask's own errors, here and in the block, are raised as errors that say what to do.
    """
    try:
        dask: Any = import_module("distributed")
    except ModuleNotFoundError:
        raise DataError(
            "ALEXNET_DASK: the package distributed is not installed; install this project's extra `dask`, or unset it"
        ) from None
    try:
        client = dask.Client(address, timeout=_SECONDS, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise Unreachable(
            f"ALEXNET_DASK: no scheduler answers at {address} within {_SECONDS} seconds ({error}); "
            "start one, or unset it to use this machine's cores"
        ) from None

    def wait_for_workers() -> None:
        try:
            client.wait_for_workers(1, timeout=_SECONDS)
        except TimeoutError:
            raise Unreachable(
                f"ALEXNET_DASK: the scheduler at {address} has had no workers for {_SECONDS} seconds; "
                f"start some: `dask worker {address}`"
            ) from None

    try:
        wait_for_workers()
        yield _Pool(client.get_executor(pure=False).submit, lambda: sum(client.nthreads().values()) or 1, wait_for_workers)
    except dask.KilledWorker as error:
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
    except (CancelledError, dask.comm.CommClosedError):
        raise Unreachable(
            f"ALEXNET_DASK: the scheduler at {address} was lost; start it and run again, what is finished is kept"
        ) from None
    finally:
        client.close()
