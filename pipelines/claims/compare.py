"""The table: claim, the paper's effect, that of the log of 2012, and ours with interval and verdict; from the result files."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import exp, log

import numpy as np

from alexnet.config import to_json
from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from pipelines.claims import cells, statistics
from pipelines.claims.cells import Recipes, Result
from pipelines.claims.mapping import FILE, Claim, Mapping
from pipelines.claims.statistics import Effect, Verdict
from pipelines.pictures.forest import Line, draw_forest


@dataclass(frozen=True)
class Outcome:
    """What came of a claim.

    top1, top5: differences in error, fractions, above 0 where the paper's side errs less; of a claim about speed, top1 is the
    natural logarithm of how many times sooner. errors: of both sides. bootstrap: the interval of top1 by percentiles.
    corrected_p, verdict: of top1, corrected for the number of claims in the table. seeds_needed: by which the paper's effect,
    or else the measured one, is resolved with a power of 80%; None: 1,000 are not enough, or it is about speed. note: what was
    counted otherwise.
    """

    top1: Effect
    top5: Effect | None
    errors: tuple[float, float] | None
    bootstrap: tuple[float, float] | None
    images: int
    corrected_p: float
    verdict: Verdict
    seeds_needed: int | None
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
    """All claims at one scale. scaled: how it was scaled down. machines: that cells ran on. hours: of all cells together."""

    scale: str
    scaled: str
    machines: tuple[str, ...]
    hours: float
    rows: tuple[Row, ...]


def compare(name: str, mapping: Mapping, recipes: Recipes) -> Table:
    """The table of the cells that are finished. Raises DataError when results do not fit one another, or there are none."""
    pairs = {claim: _pairs(name, given, recipes) for claim, given in mapping.claims.items()}
    used = [result for sides in pairs.values() for pair in sides for result in pair]
    if not used:
        raise DataError(f"{cells.RESULTS / name}: holds both sides of no claim; `alexnet claims --scale {name}` makes them")
    enough = {claim: sides for claim, sides in pairs.items() if len(sides) > 1}
    measured = {claim: _measure(mapping.claims[claim], sides, recipes, len(enough)) for claim, sides in enough.items()}
    corrected = statistics.holm([each.top1.p_value for each in measured.values()])
    outcomes = {
        claim: replace(each, corrected_p=p, verdict=statistics.verdict(each.top1.value, p))
        for (claim, each), p in zip(measured.items(), corrected, strict=True)
    }
    rows = tuple(Row(claim, given, len(pairs[claim]), outcomes.get(claim)) for claim, given in mapping.claims.items())
    single = {(result.variant, result.seeds): result.seconds for result in used if len(result.seeds) == 1}
    machines = tuple(sorted({result.machine for result in used}))
    return Table(name, recipes.scale.about, machines, round(sum(single.values()) / 3600, 2), rows)


def _pairs(name: str, claim: Claim, recipes: Recipes) -> list[tuple[Result, Result]]:
    """The results of base and other side, for every seed that has both."""
    found = []
    for seed in range(1, recipes.scale.seeds + 1):
        paths = [cells.path_of(name, recipes.cell(side, seed)) for side in (claim.base, claim.other)]
        if all(path.exists() for path in paths):
            found.append((cells.read(paths[0]), cells.read(paths[1])))
    return found


def _measure(claim: Claim, pairs: Sequence[tuple[Result, Result]], recipes: Recipes, claims: int) -> Outcome:
    """The outcome before its correction for the number of claims; claims: that number, for the seeds needed."""
    sides = [list(side) for side in zip(*pairs, strict=True)]
    if claim.until_train_error is not None:
        return _measure_speed(sides, claim.until_train_error)
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
        note="",
    )


def _measure_speed(sides: list[list[Result]], target: float) -> Outcome:
    epochs = [[epochs_until(result.train_errors, target) for result in side] for side in sides]
    late = [side[0].variant for side, reached in zip(sides, epochs, strict=True) if None in reached]
    counted = [
        [each or float(len(result.train_errors)) for each, result in zip(reached, side, strict=True)]
        for reached, side in zip(epochs, sides, strict=True)
    ]
    found = statistics.effect_of_means(np.log(np.array(counted[1]) / np.array(counted[0])))
    note = f"{', '.join(late)}: not reached with every seed, counted as the last epoch" if late else ""
    return Outcome(found, None, None, None, 0, 1.0, "not resolved", None, note)


def epochs_until(train_errors: Sequence[float], target: float) -> float | None:
    """How many epochs until the training error is this low, between two epochs by a straight line; None: never."""
    if train_errors and train_errors[0] <= target:
        return 1.0
    for epoch, (before, after) in enumerate(pairwise(train_errors), 1):
        if after <= target:
            return epoch + (before - target) / (before - after)
    return None


def _given(top1: float | None, top5: float | None, times: float | None, note: str) -> str:
    numbers = f"{times:g} times" if times else " / ".join(f"{each:g}" for each in (top1, top5) if each is not None)
    return f"{numbers} ({note})" if numbers and note else numbers or note


def markdown(table: Table) -> str:
    """The table for people, with what was scaled and what the words mean."""
    lines = [
        f"Scale `{table.scale}`: {table.scaled.strip()}",
        f"{table.hours:g} hours of {', '.join(table.machines)}.",
        "",
        "| claim (section) | paper | log of 2012 | ours, top-1 | top-5 | verdict | seeds | seeds it takes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [f"| {' | '.join(_columns(row))} |" for row in table.rows]
    measured = sum(row.outcome is not None for row in table.rows)
    return "\n".join(
        [
            *lines,
            "",
            "Differences are in points of error, above 0 where the paper's side errs less, with 95% intervals over seeds and",
            f"images. A word stands only where chance is ruled out at 5% for all {measured} measured claims together (Holm);",
            "elsewhere the claim is not resolved at this scale. Seeds it takes: to resolve the paper's effect, or the measured",
            "one where the paper gives none, four times out of five.",
            "",
        ]
    )


def _columns(row: Row) -> list[str]:
    claim, found = row.claim, row.outcome
    paper = _given(claim.paper.top1, claim.paper.top5, claim.paper.times, claim.paper.note)
    logged = _given(claim.log.top1, claim.log.top5, None, "")
    given = [f"{claim.says} ({claim.section})", paper or "-", logged or "-"]
    if found is None:
        return [*given, "not measured yet", "", "", str(row.seeds), ""]
    unit = "points" if claim.until_train_error is None else "times"
    top1 = shown(found.top1, unit) + (f"; {found.note}" if found.note else "")
    top5 = shown(found.top5, unit) if found.top5 else ""
    return [*given, top1, top5, found.verdict, str(row.seeds), str(found.seeds_needed or "-")]


def write(table: Table) -> None:
    """Writes claims/SCALE.json, .md, and the forest plot, .png and .svg."""
    stem = FILE.parent / table.scale
    atomic_write_bytes(stem.with_suffix(".json"), to_json(table))
    atomic_write_bytes(stem.with_suffix(".md"), markdown(table).encode())
    lines = [_line(row, row.outcome) for row in table.rows if row.outcome and row.claim.until_train_error is None]
    draw_forest(stem, lines, "points of top-1 error", ("ours", "paper"))


def _line(row: Row, found: Outcome) -> Line:
    value, low, high = (100 * each for each in (found.top1.value, found.top1.low, found.top1.high))
    return Line(row.name.replace("-", " "), value, low, high, row.claim.paper.top1, found.verdict != "not resolved")


def shown(effect: Effect, unit: str) -> str:
    """An effect with its interval, in points of error or times."""
    numbers = (effect.value, effect.low, effect.high)
    if unit == "times":
        value, low, high = (exp(min(each, log(1e6))) for each in numbers)
        return f"{value:.2g} times [{low:.2g}, {high:.2g}]"
    value, low, high = (100 * each for each in numbers)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
