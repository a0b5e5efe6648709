"""Error rates as in section 4.1, from the most probable classes of every image, and the file that holds them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int64

from alexnet.config import read_json
from alexnet.loading.config import Views

TOP = 5  # of top-5 error

VIEWS_NAMES: dict[Views, str] = {"center": "center crop", "ten": "ten crops"}

Labels = Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class TopK:
    """The k most probable classes of every image, most probable first, and their probabilities."""

    labels: Int64[np.ndarray, "n k"]
    probabilities: Float32[np.ndarray, "n k"]


@dataclass(frozen=True)
class ErrorRates:
    """Fractions of images whose label is not the most probable class, or not among the five most probable."""

    top1_error: float
    top5_error: float


@dataclass(frozen=True)
class Baseline:
    """The top-1 error, a fraction, of a method that the network must beat."""

    top1_error: float


@dataclass(frozen=True)
class Baselines:
    """majority: always the most frequent class of training. ridge: ridge regression on thumbnails."""

    majority: Baseline
    ridge: Baseline


@dataclass(frozen=True)
class Metrics:
    """metrics.json: error rates on the validation split by both protocols, and the numbers of its images and classes."""

    center_crop: ErrorRates
    ten_crop: ErrorRates
    baselines: Baselines
    images: int
    classes: int

    @classmethod
    def read(cls, path: Path) -> "Metrics":
        """The metrics in a file. Raises DataError when it is missing or not metrics."""
        return read_json(cls, path, "run the evaluate stage again")

    @property
    def best_views(self) -> Views:
        """The protocol with the lower top-1 error; ten crops, the paper's, where both are equal."""
        return "center" if self.center_crop.top1_error < self.ten_crop.top1_error else "ten"


def topk(probabilities: Float32[np.ndarray, "n classes"], k: int = TOP) -> TopK:
    """The k most probable classes, or all if there are fewer; of equally probable ones the lower label first.

    The source of 2012 instead divides an image's credit among equal classes, which trained networks hardly ever give.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k].astype(np.int64)
    return TopK(order, np.take_along_axis(probabilities, order, axis=1))


def concatenate(parts: list[TopK]) -> TopK:
    """The images of all parts, in order."""
    return TopK(np.concatenate([part.labels for part in parts]), np.concatenate([part.probabilities for part in parts]))


def error_rates(predicted: TopK, labels: Labels) -> ErrorRates:
    """Top-1 and top-5 error; nan of no images. With fewer than five classes top-5 error is 0: all are among the top five."""
    if not len(labels):
        return ErrorRates(float("nan"), float("nan"))
    wrong = predicted.labels != labels[:, None]
    return ErrorRates(float(wrong[:, 0].mean()), float(wrong[:, :TOP].all(1).mean()))


def error_rates_by_class(predicted: TopK, labels: Labels, classes: int) -> list[ErrorRates]:
    """The error rates of the images of every class; nan for a class without images."""
    masks = [labels == label for label in range(classes)]
    return [error_rates(TopK(predicted.labels[mask], predicted.probabilities[mask]), labels[mask]) for mask in masks]


def confusion_matrix(predicted: Labels, labels: Labels, classes: int) -> Int64[np.ndarray, "classes classes"]:
    """Number of images of each class (row) that were predicted as each class (column)."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes).astype(np.int64)
