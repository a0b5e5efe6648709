"""What the network must beat, on the same split: the most frequent class, and a linear model of tiny thumbnails."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image

from alexnet.shards.manifest import Manifest

Images = UInt8[np.ndarray, "n side side 3"]
Thumbnails = Float64[np.ndarray, "n features"]
Labels = Int64[np.ndarray, " n"]


def majority_error(manifest: Manifest) -> float:
    """Top-1 error on the validation split of always naming the most frequent class of the training split."""
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
        features: Numbers an image.
        classes: Number of classes.
        alpha: How strongly large weights are held back.
    """

    def __init__(self, features: int, classes: int, alpha: float) -> None:
        self._alpha = alpha
        self._classes = classes
        self._count = 0
        self._sum_x = np.zeros(features)
        self._sum_y = np.zeros(classes)
        self._products = np.zeros((features, features))
        self._targets = np.zeros((features, classes))

    def add(self, x: Thumbnails, labels: Labels) -> None:
        """Takes some training images in."""
        y = np.where(labels[:, None] == np.arange(self._classes), 1.0, -1.0)
        self._count += len(x)
        self._sum_x += x.sum(0)
        self._sum_y += y.sum(0)
        self._products += x.T @ x
        self._targets += x.T @ y

    def fit(self) -> "Linear":
        """The best weights for the images so far."""
        mean_x, mean_y = self._sum_x / self._count, self._sum_y / self._count
        products = self._products - self._count * np.outer(mean_x, mean_x) + self._alpha * np.eye(len(mean_x))
        weights = np.linalg.solve(products, self._targets - self._count * np.outer(mean_x, mean_y))
        return Linear(weights, mean_y - mean_x @ weights)


class Linear:
    """A score for every class: linear in the features."""

    def __init__(self, weights: Float64[np.ndarray, "features classes"], offsets: Float64[np.ndarray, " classes"]) -> None:
        self._weights, self._offsets = weights, offsets

    def guesses(self, x: Thumbnails) -> Labels:
        """The class of the highest score."""
        guesses: Labels = np.argmax(x @ self._weights + self._offsets, axis=1)
        return guesses


def ridge_error(
    train: Iterable[tuple[Images, Labels]], val: Iterable[tuple[Images, Labels]], classes: int, side_px: int, alpha: float
) -> float:
    """Top-1 error on the validation batches of a ridge regression on thumbnails of the training batches."""
    ridge = Ridge(3 * side_px**2, classes, alpha)
    for images, labels in train:
        ridge.add(thumbnails(images, side_px), labels)
    linear, wrong, count = ridge.fit(), 0, 0
    for images, labels in val:
        wrong += int((linear.guesses(thumbnails(images, side_px)) != labels).sum())
        count += len(labels)
    return wrong / count
