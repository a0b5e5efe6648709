"""What a network's class probabilities are worth: error rates as in section 4.1, log loss, calibration; and metrics.json.

Ties: equal probabilities share the ranks that they occupy. An image counts as right among the k most probable classes by
clip((k - greater) / equal, 0, 1), where `greater` classes are more probable than its own and `equal` are as probable, its own
included: so a network that gives all classes the same probability errs as one that guesses. The source of 2012 does the same.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int64

from alexnet.config import read_json
from alexnet.loading.config import Views
from alexnet.shards.manifest import Split

TOP = 5  # of top-5 error
BINS = 15  # of confidence, equally wide, each without its lower and with its upper edge
_LEAST = float(np.finfo(np.float32).tiny)  # a probability of 0 counts as this: the log loss of an image is at most 87.3

VIEWS_NAMES: dict[Views, str] = {
    "center": "center crop",
    "five": "five crops",
    "flipped": "five crops, flipped",
    "ten": "ten crops",
}

Labels = Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class TopK:
    """Every image's k most probable classes and their probabilities, most probable first, of equal ones the lower label."""

    labels: Int64[np.ndarray, "n k"]
    probabilities: Float32[np.ndarray, "n k"]


@dataclass(frozen=True)
class LabelRanks:
    """Where each image's own class stands: its probability, and how many classes are more and as probable, itself included."""

    probability: Float32[np.ndarray, " n"]
    greater: Int64[np.ndarray, " n"]
    equal: Int64[np.ndarray, " n"]

    def credit(self, k: int) -> Float64[np.ndarray, " n"]:
        """1 where the class is among the k most probable, 0 where it is not, a part of 1 where a tie straddles rank k."""
        credit: Float64[np.ndarray, " n"] = np.clip((k - self.greater) / self.equal, 0.0, 1.0)
        return credit

    @property
    def losses(self) -> Float64[np.ndarray, " n"]:
        """The log loss of each image, in nats."""
        return -np.log(np.maximum(self.probability.astype(np.float64), _LEAST))


@dataclass(frozen=True)
class Scores:
    """Means over images. Errors are fractions, the log loss is in nats; calibration_error: see `calibration_error`."""

    top1_error: float
    top5_error: float
    log_loss: float
    calibration_error: float


@dataclass(frozen=True)
class Baseline:
    """The top-1 error, a fraction, of a method that the network must beat."""

    top1_error: float


@dataclass(frozen=True)
class Metrics:
    """metrics.json. The number to quote is the center crop's, whichever is lower.

    split: whose images all of them are of, test where the source has one, else val. many_crops: by the five crops of 4.1, or by
    all ten if training flips images. baselines: `majority`, always the most frequent class of training; `ridge`, ridge
    regression on thumbnails; the variants of `evaluate.baselines`, by the center crop.
    """

    split: Split
    center_crop: Scores
    many_crops: Scores
    baselines: dict[str, Baseline]

    @classmethod
    def read(cls, path: Path) -> "Metrics":
        """The metrics in a file. Raises DataError when it is missing or not metrics."""
        return read_json(cls, path, "run the evaluate stage again")


def error(ranks: LabelRanks, k: int) -> float:
    """Top-k error. With k classes or fewer it is 0: all are among the k most probable."""
    return float((1 - ranks.credit(k)).mean())


@dataclass(frozen=True)
class Calibration:
    """The images whose highest probability lies in each bin: their number, mean confidence, and the share that is right."""

    images: Int64[np.ndarray, " bins"]
    confidence: Float64[np.ndarray, " bins"]
    accuracy: Float64[np.ndarray, " bins"]


def calibration(top: TopK, ranks: LabelRanks, bins: int = BINS) -> Calibration:
    """The curve of confidence and accuracy; nan where a bin has no images."""
    confidence = top.probabilities[:, 0].astype(np.float64)
    number = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    images = np.bincount(number, minlength=bins)
    sums = [np.bincount(number, values, bins) for values in (confidence, ranks.credit(1))]
    with np.errstate(invalid="ignore"):
        return Calibration(images, *(each / images for each in sums))


def calibration_error(curve: Calibration) -> float:
    """Expected calibration error: how far accuracy is from confidence, a mean over bins weighted by their images."""
    filled = curve.images > 0
    apart = np.abs(curve.accuracy - curve.confidence)[filled]
    return float((curve.images[filled] * apart).sum() / curve.images.sum())


def errors_by_class(ranks: LabelRanks, labels: Labels, classes: int, k: int) -> Float64[np.ndarray, " classes"]:
    """The top-k error of the images of every class; nan for a class without images."""
    with np.errstate(invalid="ignore"):
        return np.bincount(labels, 1 - ranks.credit(k), classes) / np.bincount(labels, minlength=classes)


def confusion_matrix(predicted: Labels, labels: Labels, classes: int) -> Int64[np.ndarray, "classes classes"]:
    """Number of images of each class (row) that were predicted as each class (column)."""
    return np.bincount(labels * classes + predicted, minlength=classes**2).reshape(classes, classes).astype(np.int64)
