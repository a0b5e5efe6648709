"""Nearest images, block by block, against all distances at once; equally near ones in their order."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.features.neighbors import Nearest, majority


@settings(max_examples=30)
@given(seed=st.integers(0, 99), block=st.integers(1, 9), k=st.integers(1, 5), near=st.booleans())
def test_the_nearest_are_those_of_all_distances(seed: int, block: int, k: int, near: bool) -> None:
    """Also where distances tie, and where features are far from 0 and close together."""
    drawn = np.random.default_rng(seed)
    images = (drawn.integers(0, 3, (12, 4)) + (5000.0 if near else 0)).astype(np.float32)
    queries = images[:3] + drawn.integers(0, 2, (3, 4)).astype(np.float32)
    nearest = Nearest(queries, k)
    for start in range(0, len(images), block):
        nearest.add(images[start : start + block])
    distances = np.sqrt(((queries[:, None] - images) ** 2).sum(2))
    assert np.array_equal(nearest.distances, np.sort(distances, axis=1)[:, :k].astype(np.float32))
    assert np.array_equal(nearest.distances, np.take_along_axis(distances, nearest.samples, 1).astype(np.float32))
    for samples, found in zip(nearest.samples.tolist(), nearest.distances.tolist(), strict=True):
        assert len(set(samples)) == len(samples)
        assert list(zip(found, samples, strict=True)) == sorted(zip(found, samples, strict=True))


def test_the_majority_is_the_most_frequent_and_then_the_nearest() -> None:
    assert majority(np.array([[1, 2, 2], [3, 1, 2], [1, 2, 2], [4, 5, 4]])).tolist() == [2, 3, 2, 4]
    assert majority(np.array([[0, 1, 1, 0]])).tolist() == [0]
