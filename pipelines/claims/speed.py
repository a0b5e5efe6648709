"""How soon networks learn: epochs until a training error, each recipe by its own best learning rate (3.1, figure 1)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from pathlib import Path

import numpy as np

from pipelines.claims import cells
from pipelines.claims.cells import Recipes, Result
from pipelines.claims.mapping import Side
from pipelines.claims.statistics import Effect, effect_of_means


@dataclass(frozen=True)
class Curves:
    """Training errors of a side: fractions, an epoch each, a seed each.

    rate: of learning, chosen from the scale's; None: the recipe's own. until: epochs until the claim's training error, in the
    mean over seeds; with a seed that never comes there, its last epoch counts.
    """

    variant: str
    rate: float | None
    until: float
    train_errors: tuple[tuple[float, ...], ...]


def epochs_until(train_errors: Sequence[float], target: float) -> float | None:
    """How many epochs until the training error is this low, between two epochs by a straight line; None: never."""
    if train_errors and train_errors[0] <= target:
        return 1.0
    for epoch, (before, after) in enumerate(pairwise(train_errors), 1):
        if after <= target:
            return epoch + (before - target) / (before - after)
    return None


def best_rate(name: str, side: Side, recipes: Recipes, target: float) -> float | None:
    """The rate of the side's own by which it is soonest, in the mean over the seeds that have finished with every rate.

    None: the scale has no rates for it, or no seed has finished.
    """
    rates = recipes.scale.rates.get(side.variant or "", ())
    seeds = range(1, recipes.scale.seeds + 1)
    paths = [[cells.path_of(name, recipes.cell(side, seed, rate)) for rate in rates] for seed in seeds]
    found = [[epochs_until(cells.read(path).train_errors, target) or inf for path in row] for row in paths if _all_exist(row)]
    return rates[int(np.mean(found, 0).argmin())] if rates and found else None


def _all_exist(paths: Sequence[Path]) -> bool:
    return all(path.exists() for path in paths)


def measure(sides: list[list[Result]], rates: Sequence[float | None], target: float) -> tuple[Effect, tuple[Curves, ...], str]:
    """The natural logarithm of how many times sooner the first side is there; the curves; and what was counted otherwise."""
    counted, curves, late = [], [], []
    for side, rate in zip(sides, rates, strict=True):
        reached = [epochs_until(result.train_errors, target) for result in side]
        late += [side[0].variant] if None in reached else []
        epochs = [each or float(len(result.train_errors)) for each, result in zip(reached, side, strict=True)]
        counted.append(np.array(epochs))
        errors = tuple(result.train_errors for result in side)
        curves.append(Curves(side[0].variant, rate, round(float(np.mean(epochs)), 2), errors))
    note = f"{', '.join(late)}: not reached with every seed, counted as the last epoch" if late else ""
    return effect_of_means(np.log(counted[1] / counted[0])), tuple(curves), note
