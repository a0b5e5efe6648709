"""How sure a difference between two recipes is, from several seeds of each on the same images.

The data are differences by seed and image: 1 where only the other recipe is wrong, -1 where only the base is, else 0. Seeds and
images are both samples of what the claim is about, so both are random: the two-way random-effects model, with components of
variance for seeds, for images, and for what is left. Percentiles of a bootstrap over both would hold the truth less often than
they say where few seeds differ much (three have ten resamples), so intervals are Student's, with Satterthwaite's degrees of
freedom; `bootstrap` is there to compare.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

Verdict = Literal["supported", "contradicted", "not resolved"]
Wrong = Bool[np.ndarray, "seeds images"]
Differences = Int64[np.ndarray, "seeds images"]

LEVEL = 0.95
POWER = 0.8
_MOST_SEEDS = 1000  # beyond it, more seeds are no plan


@dataclass(frozen=True)
class Components:
    """Variances of a difference: between seeds, between images, and of one seed on one image beyond those."""

    seeds: float
    images: float
    rest: float

    def error(self, seeds: int, images: int) -> tuple[float, float]:
        """The standard error of a mean over so many seeds and images, and its degrees of freedom by Satterthwaite."""
        by_seed = self.seeds / seeds + self.rest / (seeds * images)
        by_image = self.images / images
        variance = by_seed + by_image
        if not variance:
            return 0.0, float(seeds - 1)
        return variance**0.5, variance**2 / (by_seed**2 / (seeds - 1) + by_image**2 / (images - 1))


@dataclass(frozen=True)
class Effect:
    """A mean difference with its 95% interval and the two-sided p-value of no difference at all."""

    value: float
    low: float
    high: float
    p_value: float


def differences(base: Wrong, other: Wrong) -> Differences:
    """Paired by seed and by image.

    Raises:
        ValueError: the sides have other seeds or images, or less than two of them.
    """
    if base.shape != other.shape or min(base.shape) < 2:
        raise ValueError(f"sides: must have the same seeds and images, two at least, got {base.shape} and {other.shape}")
    return other.astype(np.int64) - base.astype(np.int64)


def components(of: Differences) -> Components:
    """By the analysis of variance; a component that comes out below 0 is 0."""
    seeds, images = of.shape
    by_seed, by_image, mean = of.mean(1), of.mean(0), of.mean()
    squares = float((of.astype(np.float64) ** 2).sum()) - of.size * mean**2
    seed_squares = images * float(((by_seed - mean) ** 2).sum())
    image_squares = seeds * float(((by_image - mean) ** 2).sum())
    rest = max(0.0, squares - seed_squares - image_squares) / ((seeds - 1) * (images - 1))
    of_seeds = (seed_squares / (seeds - 1) - rest) / images
    of_images = (image_squares / (images - 1) - rest) / seeds
    return Components(max(0.0, of_seeds), max(0.0, of_images), rest)


def effect(of: Differences, level: float = LEVEL) -> Effect:
    """The mean difference in error over seeds and images."""
    return _student(float(of.mean()), *components(of).error(*of.shape), level)


def effect_of_means(values: Float64[np.ndarray, " seeds"], level: float = LEVEL) -> Effect:
    """The mean of one number a seed."""
    return _student(float(values.mean()), float(values.std(ddof=1) / len(values) ** 0.5), len(values) - 1, level)


def _student(mean: float, error: float, freedom: float, level: float) -> Effect:
    from scipy.special import stdtr, stdtrit

    if error == 0:  # without any spread there is no measure of chance
        return Effect(mean, mean, mean, 1.0)
    half = float(stdtrit(freedom, (1 + level) / 2)) * error
    return Effect(mean, mean - half, mean + half, float(2 * stdtr(freedom, -abs(mean) / error)))


def bootstrap(of: Differences, resamples: int = 2000, level: float = LEVEL, seed: int = 0) -> tuple[float, float]:
    """Percentiles of the mean over resampled seeds and, independently, resampled images.

    Images whose differences are the same by every seed are drawn together, as counts: memory is that of the distinct ones.
    """
    random = np.random.default_rng(seed)
    seeds, images = of.shape
    distinct, counts = np.unique(of, axis=1, return_counts=True)
    of_seeds = random.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
    of_images = random.multinomial(images, counts / images, resamples)
    means = ((of_seeds @ distinct) * of_images).sum(1) / of.size
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: list[float]) -> list[float]:
    """Each p-value corrected for how many there are (Holm 1979): all below 0.05 are so at once in 95% of repeats."""
    order = np.argsort(p_values, kind="stable")
    times = len(p_values) - np.arange(len(p_values))
    corrected = np.empty(len(p_values))
    corrected[order] = np.minimum(1, np.maximum.accumulate(np.asarray(p_values)[order] * times)) if len(order) else 0
    return corrected.tolist()


def verdict(value: float, corrected_p: float) -> Verdict:
    """What a difference says of a claim that it is above 0: a word only where chance is ruled out after the correction."""
    if corrected_p > 1 - LEVEL:
        return "not resolved"
    return "supported" if value > 0 else "contradicted"


def power(size: float, of: Components, shape: tuple[int, int], claims: int = 1) -> float:
    """The chance that a true difference of this size is told from none with (seeds, images), when it is one of many claims.

    The correction is taken at its strictest, as if it were the smallest p-value of all.
    """
    from scipy.special import nctdtr, stdtrit

    error, freedom = of.error(*shape)
    if error == 0:
        return float(size != 0)
    critical = float(stdtrit(freedom, 1 - (1 - LEVEL) / claims / 2))
    missed = nctdtr(freedom, abs(size) / error, critical)  # the other tail, of a wrong sign, is left out
    return 1.0 if np.isnan(missed) else float(1 - missed)  # it is not a number where it is too small for one


def seeds_needed(size: float, of: Components, images: int, claims: int = 1) -> int | None:
    """The least number of seeds by which a true difference of this size is resolved with a power of 80%.

    None: 1,000 are not enough, as when there are too few images.
    """
    fewest, most = 2, _MOST_SEEDS
    if size == 0 or power(size, of, (most, images), claims) < POWER:
        return None
    while fewest < most:  # power grows with seeds
        middle = (fewest + most) // 2
        if power(size, of, (middle, images), claims) < POWER:
            fewest = middle + 1
        else:
            most = middle
    return fewest


def expected_components(error: float, seeds_std: float, shared: float) -> Components:
    """Of a difference between two recipes that err alike, before anything is measured; see `mapping.Assumed`.

    On an image that only one of two networks is wrong on, the difference is 1 or -1.
    """
    return Components(seeds=2 * seeds_std**2, images=0.0, rest=2 * error * (1 - shared))


def smallest_effect(of: Components, shape: tuple[int, int], claims: int = 1) -> float:
    """The least true difference that is resolved with (seeds, images) with a power of 80%."""
    low, high = 0.0, 1.0
    for _ in range(30):  # power grows with the difference
        middle = (low + high) / 2
        low, high = (low, middle) if power(middle, of, shape, claims) >= POWER else (middle, high)
    return high
