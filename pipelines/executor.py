"""Maps a pure function over tasks: by threads here, for the codecs release Python's lock, or by Dask's workers elsewhere.

Both look only a little ahead of who reads the results. The first failure ends it.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from importlib import import_module
from itertools import islice
from typing import Any, TypeVar

from pipelines import places
from pipelines.console import Unreachable

T = TypeVar("T")
R = TypeVar("R")
_AHEAD = 2  # tasks a worker
_SECONDS = 30  # for the scheduler to answer


def map_ordered(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    """The results in the tasks' order."""
    with _submitter() as (submit, count):
        waiting: deque[Any] = deque()
        for task in tasks:
            waiting.append(submit(function, task))
            if len(waiting) >= _AHEAD * count:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def map_unordered(function: Callable[[T], R], tasks: Iterable[T]) -> Iterator[R]:
    """The results as they come, so that one long task holds nothing up."""
    rest = iter(tasks)
    with _submitter() as (submit, count):
        running = {submit(function, task) for task in islice(rest, _AHEAD * count)}
        while running:
            done = _finished(running)
            running -= done
            for future in done:
                yield future.result()
            running |= {submit(function, task) for task in islice(rest, len(done))}


def _finished(running: set[Any]) -> set[Any]:
    """Those that are done, at least one."""
    if isinstance(next(iter(running)), Future):
        return set(wait(running, return_when=FIRST_COMPLETED).done)
    remote: Any = import_module("distributed")
    return set(remote.wait(running, return_when="FIRST_COMPLETED").done)


@contextmanager
def _submitter() -> Iterator[tuple[Callable[..., Any], int]]:
    """How to submit a task, and how many run at a time."""
    address = places.dask()
    if address is None:
        pool = ThreadPoolExecutor(places.workers())
        try:
            yield pool.submit, places.workers()
        finally:
            pool.shutdown(cancel_futures=True)
        return
    client = _client(address)
    try:
        threads = sum(client.nthreads().values()) or 1

        def submit(function: Callable[[T], R], task: T) -> Any:
            return client.submit(function, task, pure=False)

        yield submit, threads
    finally:
        client.close()


def _client(address: str) -> Any:
    remote: Any = import_module("distributed")
    try:
        return remote.Client(address, timeout=_SECONDS, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise Unreachable(
            f"ALEXNET_DASK: no scheduler answers at {address} within {_SECONDS} seconds ({error}); "
            "start one, or unset it to use this machine's cores"
        ) from None
