"""The order of an epoch: a keyed permutation, the same for any number of replicas, workers and restarts.

With every shard within reach it is a full permutation of the samples. With `window_shards` it is a permutation of the shards,
cut into windows of that many, and a permutation of the samples within each window: a cache of two windows then never waits.
A sample's batch mates come from its window only; since the windows are drawn anew every epoch, they differ from epoch to epoch.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int64

from alexnet.randomness.keys import permutation, random_key

Order = Int64[np.ndarray, " _"]


def order(
    counts: Sequence[int],
    *,
    seed: int,
    epoch: int,
    shuffle: bool,
    window_shards: int | None = None,
) -> Order:
    """Global sample indices of an epoch, each exactly once.

    Args:
        counts: Samples of every shard, in the manifest's order. A sample's index counts through the shards.
        seed: The run's seed.
        epoch: Which epoch; another one has another order.
        shuffle: False gives the manifest's order.
        window_shards: Shards that are mixed at a time; None mixes all.
    """
    total = sum(counts)
    if not shuffle:
        return np.arange(total, dtype=np.int64)
    if window_shards is None or window_shards >= len(counts):
        return permutation(random_key(seed, epoch, "order"), total).astype(np.int64)
    if window_shards < 1:
        raise ValueError(f"window_shards must be at least 1, got {window_shards}")
    firsts = np.concatenate([[0], np.cumsum(counts)])
    shards = permutation(random_key(seed, epoch, "shards"), len(counts))
    windows = [shards[start : start + window_shards] for start in range(0, len(shards), window_shards)]
    return np.concatenate(
        [_mixed(firsts, window, random_key(seed, epoch, "window", number)) for number, window in enumerate(windows)]
    )


def _mixed(firsts: Order, window: Order, key: int) -> Order:
    """The samples of a window's shards, permuted."""
    samples: Order = np.concatenate([np.arange(firsts[shard], firsts[shard + 1], dtype=np.int64) for shard in window])
    mixed: Order = samples[permutation(key, len(samples))]
    return mixed


def steps(total: int, batch_size: int) -> int:
    """Steps of an epoch: the last one takes what is left."""
    return -(-total // batch_size)


def share(batch: Order, replica: int, replicas: int) -> Order:
    """The part of a global batch that one replica takes; put together in order, the parts are the batch.

    Sizes differ by at most one. In an epoch's last step a part can be empty: every replica takes every step.
    """
    if not 0 <= replica < replicas:
        raise ValueError(f"replica must be in 0..{replicas - 1}, got {replica}")
    part: Order = batch[len(batch) * replica // replicas : len(batch) * (replica + 1) // replicas]
    return part
