"""Differences between recipes on synthetic outcomes whose true effects are known."""

from typing import Any

import numpy as np
import pytest

from pipelines.claims import statistics
from pipelines.claims.statistics import Components

IMAGES, SPREAD = 1500, 0.25  # of the seeds' skill


def outcomes(random: np.random.Generator, skill: Any, shift: float, difficulty: Any) -> Any:
    """Which images networks of this skill, a seed each, are wrong on; images differ in difficulty. shift: of the recipe."""
    return random.random((len(skill), len(difficulty))) < 1 / (1 + np.exp(-(difficulty + shift + skill)))


def pair(random: np.random.Generator, seeds: int, shift: float, spread: float = SPREAD) -> Any:
    """Differences of a recipe and another one, on images and with seeds drawn for it."""
    difficulty, skills = random.normal(-4, 2.5, IMAGES), random.normal(0, spread, (2, seeds, 1))
    base, other = (outcomes(random, skill, moved, difficulty) for skill, moved in zip(skills, (0, shift), strict=True))
    return statistics.differences(base, other)


def true_effect(shift: float) -> float:
    """Of many seeds on many images."""
    random = np.random.default_rng(0)
    difficulty, skills = random.normal(-4, 2.5, 200_000), random.normal(0, SPREAD, (2, 200_000))
    rates = [1 / (1 + np.exp(-(difficulty + moved + skill))) for moved, skill in zip((0, shift), skills, strict=True)]
    return float(rates[1].mean() - rates[0].mean())


@pytest.mark.parametrize(("seeds", "shift", "most"), [(2, 0.0, 1), (3, 0.5, 0.99), (8, 0.5, 0.97)])
def test_an_interval_holds_the_true_effect_95_times_in_a_hundred(seeds: int, shift: float, most: float) -> None:
    """With two seeds more often: then a component of variance that comes out below 0 is often taken as 0."""
    random, truth = np.random.default_rng(1), true_effect(shift)
    found = [statistics.effect(pair(random, seeds, shift)) for _ in range(400)]
    covered = np.mean([each.low <= truth <= each.high for each in found])
    assert 0.93 <= covered <= most
    assert np.mean([each.value for each in found]) == pytest.approx(truth, abs=0.004)


def test_the_bootstrap_is_too_narrow_where_few_seeds_differ_much_and_agrees_where_many_do() -> None:
    random = np.random.default_rng(2)
    few = [pair(random, 3, 0.0, spread=1.0) for _ in range(200)]
    assert np.mean([low <= 0 <= high for low, high in (statistics.bootstrap(each, 400) for each in few)]) < 0.9
    assert np.mean([found.low <= 0 <= found.high for found in map(statistics.effect, few)]) > 0.93
    many = pair(random, 40, 0.5, spread=1.0)
    ours, (low, high) = statistics.effect(many), statistics.bootstrap(many)
    assert low == pytest.approx(ours.low, abs=0.1 * (ours.high - ours.low))
    assert high == pytest.approx(ours.high, abs=0.1 * (ours.high - ours.low))


def test_claims_planted_as_false_are_not_resolved_in_95_percent_of_repeats() -> None:
    """Of ten variants that are equal to their base, none gets a word, in 95% of repeats of all ten."""
    random = np.random.default_rng(3)
    silent = []
    for _ in range(200):
        effects = [statistics.effect(pair(random, 3, 0.0)) for _ in range(10)]
        corrected = statistics.holm([each.p_value for each in effects])
        words = {statistics.verdict(each.value, p) for each, p in zip(effects, corrected, strict=True)}
        silent.append(words == {"not resolved"})
    assert np.mean(silent) >= 0.95


@pytest.mark.parametrize(("shift", "word"), [(1.0, "supported"), (-1.0, "contradicted")])
def test_a_known_effect_is_found_as_often_as_computed(shift: float, word: str) -> None:
    random, truth = np.random.default_rng(4), true_effect(shift)
    of = statistics.components(pair(random, 60, shift))
    computed = statistics.power(truth, of, (4, IMAGES))
    effects = [statistics.effect(pair(random, 4, shift)) for _ in range(400)]
    words: list[str] = [statistics.verdict(each.value, each.p_value) for each in effects]
    assert 0.3 < computed < 0.99
    assert words.count(word) / len(words) == pytest.approx(computed, abs=0.1)


def test_the_seeds_that_are_needed_are_the_fewest_that_reach_the_power() -> None:
    of = Components(seeds=1e-4, images=0.01, rest=0.03)
    needed = statistics.seeds_needed(0.01, of, 4500, claims=15)
    assert needed is not None
    assert needed > 3
    powers = [statistics.power(0.01, of, (seeds, 4500), claims=15) for seeds in (needed - 1, needed)]
    assert powers[0] < 0.8 <= powers[1]
    assert statistics.seeds_needed(0.001, of, 4500) is None  # images alone leave more doubt than that
    assert statistics.seeds_needed(0.0, of, 4500) is None


def test_components_of_variance_are_found() -> None:
    random = np.random.default_rng(5)
    seeds, images = 300, 2000
    parts = random.normal(0, 3, (seeds, 1)) + random.normal(0, 2, images) + random.normal(0, 5, (seeds, images))
    found = statistics.components((1000 * parts).astype(np.int64))
    assert [value / 1e6 for value in (found.seeds, found.images, found.rest)] == pytest.approx([9, 4, 25], rel=0.15)


def test_holm_corrects_the_smallest_the_most() -> None:
    assert statistics.holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert statistics.holm([0.9, 0.8]) == [1, 1]
    assert statistics.holm([]) == []


def test_an_effect_without_any_spread_is_not_resolved() -> None:
    same = np.zeros((3, 10), bool)
    found = statistics.effect(statistics.differences(same, same))
    assert (found.value, found.low, found.high, found.p_value) == (0, 0, 0, 1)
    assert statistics.effect_of_means(np.array([2.0, 2.0])).p_value == 1


def test_numbers_by_seed_get_students_interval() -> None:
    found = statistics.effect_of_means(np.array([1.0, 2.0, 3.0]))
    assert (found.low, found.high) == pytest.approx((2 - 4.302653 * 3**-0.5, 2 + 4.302653 * 3**-0.5))


def test_sides_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"same seeds and images, two at least, got \(3, 5\) and \(3, 6\)"):
        statistics.differences(np.zeros((3, 5), bool), np.zeros((3, 6), bool))
    with pytest.raises(ValueError, match="two at least"):
        statistics.differences(np.zeros((1, 5), bool), np.zeros((1, 5), bool))


def test_what_a_design_resolves_is_computed_before_anything_is_run() -> None:
    """Two networks that err on 4% of the images, and share half of these, differ on 4% of them."""
    random = np.random.default_rng(6)
    of = statistics.expected_components(0.04, 0.0, 0.5)
    shared, own = random.random(4000) < 0.02, random.random((2, 6, 4000)) < 0.02 / 0.98
    base, other = (shared | (each & ~shared) for each in own)
    assert statistics.components(statistics.differences(base, other)).rest == pytest.approx(of.rest, rel=0.15)
    smallest = statistics.smallest_effect(of, (6, 4000), claims=15)
    assert statistics.power(smallest, of, (6, 4000), claims=15) == pytest.approx(0.8, abs=0.001)
    assert smallest < statistics.smallest_effect(statistics.expected_components(0.04, 0.004, 0.5), (6, 4000), claims=15)


def test_more_seeds_resolve_smaller_effects() -> None:
    """Where the chance of missing an effect is below 1e-300, scipy's function is not a number for some degrees of freedom."""
    of = statistics.expected_components(0.035, 0.004, 0.5)
    smallest = [statistics.smallest_effect(of, (seeds, 4500), claims=15) for seeds in range(3, 24)]
    assert smallest == sorted(smallest, reverse=True)
