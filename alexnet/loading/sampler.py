"""Which samples every step of an epoch reads: a keyed permutation, the same for any number of replicas, workers and restarts.

With every shard within reach it is a full permutation of the samples. With `window_shards` it is a permutation of the shards,
cut into windows of that many, and a permutation of the samples within each window: a cache of two windows then never waits.
A batch holds samples of one window only (of two where a window ends); windows are drawn anew every epoch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from alexnet.randomness.keys import permutation, random_key

Order = Int64[np.ndarray, " _"]


@dataclass(frozen=True)
class BatchSampler:
    """The global sample indices of every batch. A sample's index counts through the shards in the manifest's order.

    batch_size: samples of a step over all replicas. seed: the run's. shuffle: False gives the manifest's order. window_shards:
    shards that are mixed at a time; None mixes all. replica, replicas: which part of every batch is taken, and of how many;
    the two ranks of a tower pair are one replica.
    """

    batch_size: int
    seed: int
    shuffle: bool
    window_shards: int | None = None
    replica: int = 0
    replicas: int = 1

    def steps(self, total: int) -> int:
        """Steps of an epoch of so many samples: the last one takes what is left."""
        return -(-total // self.batch_size)

    def order(self, counts: Sequence[int], epoch: int) -> Order:
        """All samples of an epoch, each exactly once, over all replicas. counts: samples of every shard."""
        total = sum(counts)
        if not self.shuffle:
            return np.arange(total, dtype=np.int64)
        if self.window_shards is None or self.window_shards >= len(counts):
            return permutation(random_key(self.seed, epoch, "order"), total).astype(np.int64)
        firsts = np.concatenate([[0], np.cumsum(counts)])
        shards = permutation(random_key(self.seed, epoch, "shards"), len(counts))
        windows = [shards[start : start + self.window_shards] for start in range(0, len(shards), self.window_shards)]
        return np.concatenate(
            [_permuted(firsts, window, random_key(self.seed, epoch, "window", number)) for number, window in enumerate(windows)]
        )

    def batches(self, counts: Sequence[int], epoch: int, first_step: int = 0) -> list[Order]:
        """This replica's part of every batch of an epoch, from a step on. Parts of all replicas, in order, are the batch.

        Their sizes differ by at most one. In an epoch's last step a part can be empty: every replica takes every step.
        """
        order = self.order(counts, epoch)
        starts = range(first_step * self.batch_size, len(order), self.batch_size)
        return [self._part(order[start : start + self.batch_size]) for start in starts]

    def _part(self, batch: Order) -> Order:
        return batch[len(batch) * self.replica // self.replicas : len(batch) * (self.replica + 1) // self.replicas]


def _permuted(firsts: Order, window: Order, window_key: int) -> Order:
    samples: Order = np.concatenate([np.arange(firsts[shard], firsts[shard + 1], dtype=np.int64) for shard in window])
    permuted: Order = samples[permutation(window_key, len(samples))]
    return permuted
