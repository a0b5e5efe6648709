"""Shards opened before they are needed, by threads: a fetch from the store then costs no step any time."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from alexnet.loading.dataset import ShardDataset
from alexnet.loading.sampler import Order

JOIN_SECONDS = 3.0


@dataclass(frozen=True)
class Need:
    """A shard, and the steps in which it is read first and last."""

    number: int
    bytes: int
    first_step: int
    last_step: int


def needs(samples: ShardDataset, shares: Sequence[Order]) -> list[Need]:
    """The shards that the steps to come read, in the order in which they are needed."""
    counts = np.diff(samples.firsts)
    numbers = np.repeat(np.arange(len(counts)), counts)[np.concatenate([np.empty(0, np.int64), *shares])]
    steps = np.repeat(np.arange(len(shares)), [len(share) for share in shares])
    first, last = np.full(len(counts), len(shares)), np.full(len(counts), -1)
    first[numbers[::-1]] = steps[::-1]  # of a number that comes several times, what is put last stays
    last[numbers] = steps
    return [
        Need(number, samples.shards[number].bytes, int(first[number]), int(last[number]))
        for number in np.argsort(first, kind="stable").tolist()
        if last[number] >= 0
    ]


class ShardsAhead:
    """Threads that open the shards of the steps to come, as far ahead as the cache has room for them beside those still in use.

    Args:
        samples: Whose shards.
        shares: The samples of every step to come.
        streams: Number of threads, each fetching one shard at a time.
        fail: Called with what stops a thread.
    """

    def __init__(self, samples: ShardDataset, shares: Sequence[Order], streams: int, fail: Callable[[Exception], None]) -> None:
        self._samples = samples
        self._fail = fail
        self._needs = needs(samples, shares)
        self._taken = 0
        self._step = 0
        self._stopped = False
        self._change = threading.Condition()
        self._fitting = self._count_fitting()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(min(streams, len(self._needs)))]
        for thread in self._threads:
            thread.start()

    def advance(self, step: int) -> None:
        """Says that the steps before this one are over."""
        with self._change:
            self._keep_those_in_use(step)
            self._step = step
            self._fitting = self._count_fitting()
            self._change.notify_all()

    def fits(self, step: int) -> bool:
        """Whether the cache holds the shards of this step beside those of the steps before it that are not over."""
        return step <= self._step or self._fitting == len(self._needs) or step < self._needs[self._fitting].first_step

    def stop(self) -> Sequence[threading.Thread]:
        """Tells the threads to end, and returns them."""
        with self._change:
            self._stopped = True
            self._change.notify_all()
        return self._threads

    def _run(self) -> None:
        try:
            while (number := self._take()) is not None:
                self._samples.open(number)
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that waits for the batch
            self._fail(error)

    def _take(self) -> int | None:
        """The next shard that is needed, once there is room for it; None at the end."""
        with self._change:
            while not self._stopped and self._taken < len(self._needs):
                if self._taken < self._fitting:
                    self._taken += 1
                    return self._needs[self._taken - 1].number
                self._change.wait()
            return None

    def _keep_those_in_use(self, step: int) -> None:
        """Marks them as used now, before more may be opened: shards come in any order, and the oldest is the first to go."""
        if self._fitting < len(self._needs):
            for need in self._needs[: self._fitting]:
                if need.last_step >= step:
                    self._samples.cache.touch(self._samples.shards[need.number])

    def _count_fitting(self) -> int:
        """How many needs, of those in order, are over or fit into the cache together."""
        limit = self._samples.cache.limit_bytes
        if limit is None:
            return len(self._needs)
        for count, need in enumerate(self._needs):
            limit -= need.bytes if need.last_step >= self._step else 0
            if limit < 0:
                return count
        return len(self._needs)


def join(threads: Sequence[threading.Thread]) -> None:
    """Waits for threads that were told to stop, up to JOIN_SECONDS in all: one that is deep in a fetch ends with the fetch."""
    deadline = time.monotonic() + JOIN_SECONDS
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
