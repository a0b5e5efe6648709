"""What came of every claim: its effect by the paper, by the log of 2012, and here with interval and verdict."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from alexnet.errors import DataError
from pipelines.claims import cells, speed, statistics
from pipelines.claims.cells import Recipes, Result
from pipelines.claims.mapping import Assumed, Claim, Mapping
from pipelines.claims.speed import Curves
from pipelines.claims.statistics import Effect, Verdict


@dataclass(frozen=True)
class Outcome:
    """What came of a claim.

    top1, top5: differences in error, fractions, above 0 where the paper's side errs less; of a claim about speed, top1 is the
    natural logarithm of how many times sooner. errors: of both sides. bootstrap: the interval of top1 by percentiles.
    corrected_p, verdict: of top1, corrected for the number of claims in the table. seeds_needed: by which the paper's effect,
    or else the measured one, is resolved with a power of 80%; None: 1,000 are not enough, or it is about speed. curves: of both
    sides of a claim about speed. note: what was counted otherwise.
    """

    top1: Effect
    top5: Effect | None
    errors: tuple[float, float] | None
    bootstrap: tuple[float, float] | None
    images: int
    corrected_p: float
    verdict: Verdict
    seeds_needed: int | None
    curves: tuple[Curves, ...]
    note: str


@dataclass(frozen=True)
class Row:
    """A claim, its effect by the paper and by the log, and the outcome here; None with less than two seeds of both sides."""

    name: str
    claim: Claim
    seeds: int
    outcome: Outcome | None


@dataclass(frozen=True)
class Table:
    """All claims at one scale.

    scaled: how it was scaled down. seeds: of every side, when all are finished. rates: that variants choose from, if they do.
    smallest: the difference that was to be resolved with a power of 80%, computed beforehand from what was assumed; None: it
    was not. machines: that cells ran on. hours: of all cells together.
    """

    scale: str
    scaled: str
    seeds: int
    rates: dict[str, tuple[float, ...]]
    assumed: Assumed | None
    smallest: float | None
    machines: tuple[str, ...]
    hours: float
    rows: tuple[Row, ...]


def compare(name: str, mapping: Mapping, recipes: Recipes) -> Table:
    """The table of the cells that are finished. Raises DataError when results do not fit one another, or there are none."""
    claims, scale = mapping.claims_of(recipes.scale), recipes.scale
    pairs = {claim: _pairs(name, given, recipes) for claim, given in claims.items()}
    finished = _finished(name, mapping, recipes)
    if not finished:
        raise DataError(f"{cells.RESULTS / name}: holds no results; `alexnet claims --scale {name}` makes them")
    enough = {claim: sides for claim, sides in pairs.items() if len(sides) > 1}
    measured = {claim: _measure(name, claims[claim], sides, recipes, len(enough)) for claim, sides in enough.items()}
    corrected = statistics.holm([each.top1.p_value for each in measured.values()])
    outcomes = {
        claim: replace(each, corrected_p=p, verdict=statistics.verdict(each.top1.value, p))
        for (claim, each), p in zip(measured.items(), corrected, strict=True)
    }
    return Table(
        name,
        scale.about.strip(),
        scale.seeds,
        scale.rates,
        scale.assumed,
        _smallest(scale.assumed, scale.seeds, len(claims)),
        machines=tuple(sorted({result.machine for result in finished})),
        hours=round(sum(result.seconds for result in finished) / 3600, 2),
        rows=tuple(Row(claim, given, len(pairs[claim]), outcomes.get(claim)) for claim, given in claims.items()),
    )


def _smallest(assumed: Assumed | None, seeds: int, claims: int) -> float | None:
    if assumed is None:
        return None
    of = statistics.expected_components(assumed.error, assumed.seeds_std, assumed.shared)
    return statistics.smallest_effect(of, (seeds, assumed.images), claims)


def _finished(name: str, mapping: Mapping, recipes: Recipes) -> list[Result]:
    """The results of single networks."""
    planned = (cells.path_of(name, cell) for cell in cells.plan(mapping, recipes.scale, recipes) if len(cell.seeds) == 1)
    return [cells.read(path) for path in planned if path.exists()]


def _rates(name: str, claim: Claim, recipes: Recipes) -> list[float | None]:
    target = claim.until_train_error
    sides = (claim.base, claim.other)
    return [None if target is None else speed.best_rate(name, side, recipes, target) for side in sides]


def _pairs(name: str, claim: Claim, recipes: Recipes) -> list[tuple[Result, Result]]:
    """The results of base and other side, for every seed that has both."""
    found, rates = [], _rates(name, claim, recipes)
    for seed in range(1, recipes.scale.seeds + 1):
        sides = zip((claim.base, claim.other), rates, strict=True)
        paths = [cells.path_of(name, recipes.cell(side, seed, rate)) for side, rate in sides]
        if all(path.exists() for path in paths):
            found.append((cells.read(paths[0]), cells.read(paths[1])))
    return found


def _measure(name: str, claim: Claim, pairs: Sequence[tuple[Result, Result]], recipes: Recipes, claims: int) -> Outcome:
    """The outcome before its correction for the number of claims; claims: that number, for the seeds needed."""
    sides = [list(side) for side in zip(*pairs, strict=True)]
    if claim.until_train_error is not None:
        sooner, curves, note = speed.measure(sides, _rates(name, claim, recipes), claim.until_train_error)
        return Outcome(sooner, None, None, None, 0, 1.0, "not resolved", None, curves, note)
    (base1, base5), (other1, other5) = (
        cells.wrong_by_seed(results, recipes.views(side))
        for results, side in zip(sides, (claim.base, claim.other), strict=True)
    )
    top1, top5 = statistics.differences(base1, other1), statistics.differences(base5, other5)
    found, images = statistics.effect(top1), top1.shape[1]
    return Outcome(
        found,
        statistics.effect(top5),
        errors=(float(base1.mean()), float(other1.mean())),
        bootstrap=statistics.bootstrap(top1),
        images=images,
        corrected_p=1.0,
        verdict="not resolved",
        seeds_needed=statistics.seeds_needed(
            (claim.paper.top1 or 0) / 100 or found.value, statistics.components(top1), images, claims
        ),
        curves=(),
        note="",
    )
