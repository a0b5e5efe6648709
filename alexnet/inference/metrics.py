"""Error rates as in section 4.1, from the best few classes of every image."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64

TOP = 5  # of top-5 error

Views = Literal["center", "ten"]

Labels = Int64[np.ndarray, " n"]


@dataclass(frozen=True)
class EvaluateConfig:
    """Images per forward pass, and the ridge baseline: its thumbnails' side in pixels and its regularization."""

    batch_size: int
    thumbnail_px: int
    ridge_alpha: float

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: must be at least 1, got {self.batch_size}")
        if self.thumbnail_px < 1:
            raise ValueError(f"thumbnail_px: must be at least 1, got {self.thumbnail_px}")
        if self.ridge_alpha <= 0:
            raise ValueError(f"ridge_alpha: must be above 0, got {self.ridge_alpha}")


@dataclass(frozen=True)
class Best:
    """The most probable classes of every image, the best first, and their probabilities."""

    labels: Int64[np.ndarray, "n k"]
    probabilities: Float32[np.ndarray, "n k"]


def best(probabilities: Float32[np.ndarray, "n classes"], count: int = TOP) -> Best:
    """The `count` most probable classes, or all if there are fewer; of equal ones the lower label first.

    The code of 2012 instead shares an image's credit among equal classes, which trained networks hardly ever give.
    """
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :count].astype(np.int64)
    return Best(order, np.take_along_axis(probabilities, order, axis=1))


def joined(parts: list[Best]) -> Best:
    """The images of all parts, in order."""
    return Best(np.concatenate([part.labels for part in parts]), np.concatenate([part.probabilities for part in parts]))


def errors(guesses: Best, labels: Labels) -> dict[str, float]:
    """Top-1 and top-5 error, fractions. With fewer than five classes top-5 error is 0: every class is among the best five."""
    wrong = guesses.labels != labels[:, None]
    return {"top1_error": float(wrong[:, 0].mean()), "top5_error": float(wrong[:, :TOP].all(1).mean())}


def better_views(metrics: Mapping[str, Any]) -> Views:
    """The protocol of the lower top-1 error, which pictures and `predict` go by; the paper's ten crops where they are equal."""
    return "center" if metrics["center_crop"]["top1_error"] < metrics["ten_crop"]["top1_error"] else "ten"


def words_for(views: Views) -> str:
    """A protocol's name for people."""
    return "center crop" if views == "center" else "ten crops"


def errors_by_class(guesses: Best, labels: Labels, classes: int) -> list[dict[str, float]]:
    """The same for the images of every class; nan where there are none."""
    nothing = {"top1_error": float("nan"), "top5_error": float("nan")}
    return [
        errors(Best(guesses.labels[of_class], guesses.probabilities[of_class]), labels[of_class]) if of_class.any() else nothing
        for of_class in (labels == label for label in range(classes))
    ]


def confusion(guesses: Labels, labels: Labels, classes: int) -> Int64[np.ndarray, "classes classes"]:
    """How many images of each class (row) were taken for each class (column)."""
    return np.bincount(labels * classes + guesses, minlength=classes**2).reshape(classes, classes).astype(np.int64)
