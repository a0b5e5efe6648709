"""The nearest training images of some images by the L2 distance of their features, exact (section 6.1, figure 4).

neighbors.parquet has a row for each of the first images (`probe.queries`) of the reported split, in the manifest's order:

    key, label, name       of the image, string, int32, string
    sample                 its index in that split, int64
    neighbor_keys, neighbor_labels, neighbor_names, neighbor_samples
                           of its nearest training images, nearest first: fixed-size lists; samples are indices there
    distances              to them, fixed-size list of float32
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float32, Int64, Num

from alexnet.files.atomic import atomic_write
from alexnet.loading.dataset import ShardDataset
from alexnet.shards.manifest import Synset

Features = Num[np.ndarray, "n units"]


class Nearest:
    """The k nearest of all images added so far, for each of some images. samples, distances: nearest first.

    Images are compared in blocks by scikit-learn. Equally near ones are listed in the order in which they were added; which of
    them are among the k, where not all are, is not defined.
    """

    def __init__(self, queries: Features, k: int) -> None:
        self._queries, self._k, self._added = queries, k, 0
        self.samples: Int64[np.ndarray, "n k"] = np.zeros((len(queries), 0), np.int64)
        self.distances: Float32[np.ndarray, "n k"] = np.zeros((len(queries), 0), np.float32)

    def add(self, block: Features) -> None:
        """Compares with the next images."""
        from sklearn.neighbors import NearestNeighbors

        search = NearestNeighbors(n_neighbors=min(self._k, len(block)), algorithm="brute").fit(block)
        found = np.sort(search.kneighbors(self._queries, return_distance=False), axis=1)
        # scikit-learn's own distances are differences of large products, whose last digits depend on the number of threads.
        distances = np.linalg.norm(self._queries[:, None].astype(np.float64) - block[found], axis=2).astype(np.float32)
        samples = np.concatenate([self.samples, found + self._added], axis=1)
        distances = np.concatenate([self.distances, distances], axis=1)
        order = np.argsort(distances, axis=1, kind="stable")[:, : self._k]
        self.samples, self.distances = np.take_along_axis(samples, order, 1), np.take_along_axis(distances, order, 1)
        self._added += len(block)


def majority(labels: Int64[np.ndarray, "n k"]) -> Int64[np.ndarray, " n"]:
    """The most frequent label of every row; of equally frequent ones the one that comes first."""
    votes = (labels[:, :, None] == labels[:, None, :]).sum(2)
    return np.take_along_axis(labels, votes.argmax(1)[:, None], 1)[:, 0]


def labels_and_keys(samples: ShardDataset, indices: Int64[np.ndarray, " n"]) -> tuple[Int64[np.ndarray, " n"], list[str]]:
    """Of images by their global index."""
    places = list(zip(*samples.shards_and_rows(indices), strict=True))
    labels = [int(samples.open(number).index.labels[row]) for number, row in places]
    return np.array(labels, np.int64), [samples.open(number).index.keys[row] for number, row in places]


def count_wrong(nearest: Nearest, judged: ShardDataset, train: ShardDataset) -> int:
    """The number of queries whose label is not the majority's of their neighbors."""
    labels, _ = labels_and_keys(judged, np.arange(len(nearest.samples)))
    near, _ = labels_and_keys(train, nearest.samples.ravel())
    return int((majority(near.reshape(nearest.samples.shape)) != labels).sum())


def write(path: Path, nearest: Nearest, judged: ShardDataset, train: ShardDataset, synsets: Sequence[Synset]) -> None:
    """Writes neighbors.parquet."""
    indices, k = np.arange(len(nearest.samples)), nearest.samples.shape[1]
    labels, keys = labels_and_keys(judged, indices)
    near_labels, near_keys = labels_and_keys(train, nearest.samples.ravel())

    def lists(values: pa.Array) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(values, k)

    def names(of: Int64[np.ndarray, " n"]) -> pa.Array:
        return pa.array([synsets[label].name for label in of], pa.string())

    columns = {
        "key": pa.array(keys, pa.string()),
        "label": pa.array(labels, pa.int32()),
        "name": names(labels),
        "sample": pa.array(indices, pa.int64()),
        "neighbor_keys": lists(pa.array(near_keys, pa.string())),
        "neighbor_labels": lists(pa.array(near_labels, pa.int32())),
        "neighbor_names": lists(names(near_labels)),
        "neighbor_samples": lists(pa.array(nearest.samples.ravel(), pa.int64())),
        "distances": lists(pa.array(nearest.distances.ravel(), pa.float32())),
    }
    with atomic_write(path) as part:
        pq.write_table(pa.table(columns), part, compression="zstd")
