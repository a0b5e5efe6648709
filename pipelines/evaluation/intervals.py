"""95% intervals of what was measured on a sample of images, and the test of whether two networks err equally often."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64

from pipelines.evaluation.results import Estimate

_LEVEL = 0.95


@dataclass(frozen=True)
class Paired:
    """Two networks on the same images: on how many only one of them is wrong, and McNemar's exact p-value, two-sided.

    difference: of the first's error less the second's, a fraction of the images.
    """

    images: int
    only_first_wrong: int
    only_second_wrong: int
    difference: Estimate
    p_value: float


def share(value: float, images: int) -> Estimate:
    """A fraction of images with Wilson's score interval; a tie's part of an image is rounded to the nearest whole one."""
    from scipy.stats import binomtest

    interval = binomtest(round(value * images), images).proportion_ci(_LEVEL, "wilson")
    return Estimate(value, float(interval.low), float(interval.high))


def mean(values: Float64[np.ndarray, " n"]) -> Estimate:
    """A mean over images with the interval of the normal distribution; of a single image, the interval is the value."""
    from scipy.stats import norm

    value = float(values.mean())
    half = float(norm.ppf((1 + _LEVEL) / 2) * values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0
    return Estimate(value, value - half, value + half)


def compare(first_wrong: Bool[np.ndarray, " n"], second_wrong: Bool[np.ndarray, " n"]) -> Paired:
    """McNemar's exact test of two networks on the same images in the same order, and the interval of Agresti and Min (2005).

    That is Wald's for matched pairs after half an image is added to each of the four cells: unlike Wald's it has a width also
    where two networks agree on every image.
    """
    from scipy.stats import binomtest, norm

    first, second = int((first_wrong & ~second_wrong).sum()), int((second_wrong & ~first_wrong).sum())
    images = len(first_wrong)
    n, mean = images + 2, (first - second) / (images + 2)
    half = float(norm.ppf((1 + _LEVEL) / 2)) * ((first + second + 1) / n - mean**2) ** 0.5 / n**0.5
    difference = Estimate((first - second) / images, mean - half, mean + half)
    p_value = float(binomtest(first, first + second).pvalue) if first + second else 1.0
    return Paired(images, first, second, difference, p_value)
