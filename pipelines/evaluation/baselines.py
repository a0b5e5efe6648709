"""Baselines on the validation split: always the most frequent class, and ridge regression on thumbnails."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image

from alexnet.shards.manifest import Manifest

Images = UInt8[np.ndarray, "n side side 3"]
Thumbnails = Float64[np.ndarray, "n features"]
Labels = Int64[np.ndarray, " n"]


def majority_error(manifest: Manifest) -> float:
    """Top-1 error on the validation split when every image is predicted as the training split's most frequent class."""
    counts = {split: np.zeros(len(manifest.synsets), np.int64) for split in ("train", "val")}
    for split, shards in manifest.splits.items():
        for shard in shards:
            for label, images in shard.labels.items():
                counts[split][label] += images
    return float(np.delete(counts["val"], counts["train"].argmax()).sum() / counts["val"].sum())


def thumbnails(images: Images, side_px: int) -> Thumbnails:
    """Each image averaged down to side_px x side_px, flat, RGB in 0..1."""
    small = [Image.fromarray(image).resize((side_px, side_px), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image, np.float64).ravel() for image in small]) / 255


class Ridge:
    """Ridge regression onto the classes' indicators, with an intercept: scikit-learn's RidgeClassifier, one batch at a time.

    Memory does not grow with the number of images.

    Args:
        features: Features of an image.
        classes: Number of classes.
        alpha: The factor of the squared weights that is added to the squared error.
    """

    def __init__(self, features: int, classes: int, alpha: float) -> None:
        self._alpha = alpha
        self._count = 0
        self._sum_x, self._sum_y = np.zeros(features), np.zeros(classes)
        self._sum_xx, self._sum_xy = np.zeros((features, features)), np.zeros((features, classes))

    def add(self, x: Thumbnails, labels: Labels) -> None:
        """Adds training images."""
        y = np.where(labels[:, None] == np.arange(len(self._sum_y)), 1.0, -1.0)
        self._count += len(x)
        self._sum_x += x.sum(0)
        self._sum_y += y.sum(0)
        self._sum_xx += x.T @ x
        self._sum_xy += x.T @ y

    def fit(self) -> tuple[Float64[np.ndarray, "features classes"], Float64[np.ndarray, " classes"]]:
        """The weights and intercepts for the images added so far: a class's score is x @ weights + intercept."""
        mean_x, mean_y = self._sum_x / self._count, self._sum_y / self._count
        covariance = self._sum_xx - self._count * np.outer(mean_x, mean_x) + self._alpha * np.eye(len(mean_x))
        weights = np.linalg.solve(covariance, self._sum_xy - self._count * np.outer(mean_x, mean_y))
        return weights, mean_y - mean_x @ weights


def ridge_error(
    train: Iterable[tuple[Images, Labels]], val: Iterable[tuple[Images, Labels]], classes: int, side_px: int, alpha: float
) -> float:
    """Top-1 error on the validation batches of a ridge regression on thumbnails of the training batches."""
    ridge, wrong, count = Ridge(3 * side_px**2, classes, alpha), 0, 0
    for images, labels in train:
        ridge.add(thumbnails(images, side_px), labels)
    weights, intercepts = ridge.fit()
    for images, labels in val:
        scores = thumbnails(images, side_px) @ weights + intercepts
        wrong += int((scores.argmax(1) != labels).sum())
        count += len(labels)
    return wrong / count
