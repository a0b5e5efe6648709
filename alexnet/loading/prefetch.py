"""Shards opened before they are needed, so that no step waits for a fetch from the store."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from alexnet.loading.dataset import ShardDataset
from alexnet.loading.sampler import Order
from alexnet.ops.threads import Prefetcher


@dataclass(frozen=True)
class ShardUse:
    """A shard by its number, and the steps in which it is read first and last."""

    number: int
    bytes: int
    first_step: int
    last_step: int


def shard_uses(dataset: ShardDataset, batches: Sequence[Order]) -> list[ShardUse]:
    """The shards that the batches of an epoch's remaining steps read, in the order in which they are needed."""
    counts = np.diff(dataset.firsts)
    numbers = np.repeat(np.arange(len(counts)), counts)[np.concatenate([np.empty(0, np.int64), *batches])]
    steps = np.repeat(np.arange(len(batches)), [len(batch) for batch in batches])
    first, last = np.full(len(counts), len(batches)), np.full(len(counts), -1)
    first[numbers[::-1]] = steps[::-1]  # of several assignments to one number the last one counts
    last[numbers] = steps
    return [
        ShardUse(number, dataset.shards[number].bytes, int(first[number]), int(last[number]))
        for number in np.argsort(first, kind="stable").tolist()
        if last[number] >= 0
    ]


class ShardPrefetcher:
    """Opens shards of the steps to come, as many ahead as the cache has room for beside those still in use.

    A shard that cannot be opened is no error here: the dataset raises it to whoever reads from the shard. Used in a `with`
    statement, which ends the threads; each fetches a shard at a time. batches: the samples of every step to come.
    """

    def __init__(self, dataset: ShardDataset, batches: Sequence[Order], workers: int) -> None:
        self._dataset = dataset
        self._uses = shard_uses(dataset, batches)
        self._step = 0
        self._fitting = self._count_fitting()
        self._opened: Prefetcher[tuple[int, ShardUse], None] = Prefetcher(
            lambda each: self._open(each[1]),
            enumerate(self._uses),
            min(workers, len(self._uses)),
            lambda _, each: each[0] < self._fitting,
        )

    def __enter__(self) -> "ShardPrefetcher":
        return self

    def __exit__(self, *exception: object) -> None:
        self._opened.__exit__(*exception)

    def advance(self, step: int) -> None:
        """Frees the room of shards that only steps before this one read."""
        if self._fitting < len(self._uses):
            for use in self._uses[: self._fitting]:
                if use.last_step >= step:  # in use: the cache must not remove it for those that are opened next
                    self._dataset.cache.touch(self._dataset.shards[use.number])
        self._step = step
        self._fitting = self._count_fitting()
        self._opened.wake()

    def fits(self, step: int) -> bool:
        """Whether the cache holds the shards of this step beside those of the unfinished steps before it."""
        fitting = self._fitting  # read once: the consumer's thread changes it
        return step <= self._step or fitting == len(self._uses) or step < self._uses[fitting].first_step

    def _open(self, use: ShardUse) -> None:
        self._dataset.open(use.number)

    def _count_fitting(self) -> int:
        """How many shards, in order of need, are no longer used or fit into the cache together."""
        limit = self._dataset.cache.limit_bytes
        if limit is None:
            return len(self._uses)
        for count, use in enumerate(self._uses):
            limit -= use.bytes if use.last_step >= self._step else 0
            if limit < 0:
                return count
        return len(self._uses)
