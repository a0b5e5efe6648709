"""The table of claims for people: claim, the paper's effect, that of the log of 2012, and ours with interval and verdict."""

from math import exp
from math import log as ln
from pathlib import Path

from alexnet.config import to_json
from alexnet.files.atomic import atomic_write_bytes
from pipelines.claims.compare import Outcome, Row, Table
from pipelines.claims.mapping import FILE, Claim
from pipelines.claims.statistics import Effect
from pipelines.pictures.forest import Line, draw_forest
from pipelines.pictures.speed import Learning, draw_speed

_MOST = ln(1e6)  # times sooner, of an interval without end


def paper(claim: Claim) -> str:
    """The effect that the paper gives; empty where it gives none."""
    return _given(claim.paper.top1, claim.paper.top5, claim.paper.times, claim.paper.note)


def log(claim: Claim) -> str:
    """The effect in the logs of 2012; empty where there is none."""
    return _given(claim.log.top1, claim.log.top5, None, "")


def ours(row: Row) -> str:
    """The effect here on top-1 error, or on the epochs until a training error with how many those are."""
    found = row.outcome
    if found is None:
        return "not measured yet"
    if not found.curves:
        return shown(found.top1, "points")
    sides = [f"{side.until:g}" + (f" at rate {side.rate:g}" if side.rate else "") for side in found.curves]
    until = f"epochs until {row.claim.until_train_error:.0%}: {sides[0]}, {sides[1]}"
    return "; ".join(filter(None, (shown(found.top1, "times"), until, found.note)))


def finished(row: Row, of: Table) -> str:
    """How many seeds have both sides."""
    return str(of.seeds) if row.seeds == of.seeds else f"{row.seeds} of {of.seeds}"


def _given(top1: float | None, top5: float | None, times: float | None, note: str) -> str:
    numbers = f"{times:g} times" if times else " / ".join(f"{each:g}" for each in (top1, top5) if each is not None)
    return f"{numbers} ({note})" if numbers and note else numbers or note


def markdown(table: Table) -> str:
    """The table for people, with what was scaled and what the words mean."""
    measured = sum(row.outcome is not None for row in table.rows)
    return "\n".join(
        [
            f"Scale `{table.scale}`: {table.scaled}",
            f"It took {table.hours:g} hours of {', '.join(table.machines)}. {design(table)}".rstrip(),
            "",
            "| claim (section) | paper | log of 2012 | ours, top-1 | top-5 | verdict | seeds | seeds needed |",
            "|---|---|---|---|---|---|---|---|",
            *(f"| {' | '.join(_columns(row, table))} |" for row in table.rows),
            "",
            *_legend(table, measured),
            "",
        ]
    )


def design(table: Table) -> str:
    """What the scale was to resolve, in a sentence, or how rates were chosen."""
    found, assumed = [], table.assumed
    if table.rates:
        rates = "; ".join(f"{name}: {', '.join(f'{rate:g}' for rate in each)}" for name, each in table.rates.items())
        found.append(
            f"Each recipe is trained with every seed at several rates, and the rate that is soonest is compared ({rates})."
        )
    if assumed and table.smallest:
        found.append(
            f"Computed beforehand: if networks err on {assumed.error:.1%} of {assumed.images:,} images, differ by "
            f"{100 * assumed.seeds_std:g} points (standard deviation) between seeds and share {assumed.shared:.0%} of "
            f"their wrong images, {table.seeds} seeds resolve a difference of {100 * table.smallest:.1f} points with 80% "
            f"power, corrected for {len(table.rows)} claims."
        )
    return " ".join(found)


def _legend(table: Table, measured: int) -> list[str]:
    if all(row.claim.until_train_error is not None for row in table.rows):
        return ["How many times fewer epochs, with a 95% interval over seeds."]
    return [
        "Differences are in points of error, above 0 where the paper's side errs less, with 95% intervals over seeds and",
        "images. A claim is called supported or contradicted only if chance is ruled out at 5% for",
        f"all {measured} measured claims together (Holm); otherwise it is not resolved at this scale. Seeds needed: how many",
        "resolve the paper's effect, or the measured one if the paper gives none, with 80% power.",
    ]


def _columns(row: Row, of: Table) -> list[str]:
    claim, found = row.claim, row.outcome
    given = [f"{claim.says} ({claim.section})", paper(claim) or "-", log(claim) or "-", ours(row)]
    if found is None:
        return [*given, "", "", finished(row, of), ""]
    top5 = shown(found.top5, "points") if found.top5 else ""
    return [*given, top5, found.verdict, finished(row, of), str(found.seeds_needed or "-")]


def write(table: Table) -> None:
    """Writes claims/SCALE.json and .md, and pictures of them, .png and .svg: a forest plot, or figure 1."""
    stem = FILE.parent / table.scale
    atomic_write_bytes(stem.with_suffix(".json"), to_json(table))
    atomic_write_bytes(stem.with_suffix(".md"), markdown(table).encode())
    draw(table, stem)


def draw(table: Table, stem: Path) -> None:
    """Draws the differences in error as a forest plot, and where rates were chosen the training errors as in figure 1."""
    found = [(row, row.outcome) for row in table.rows if row.outcome]
    lines = [_line(row, each) for row, each in found if not each.curves]
    if lines:
        draw_forest(stem, lines, "points of top-1 error", ("ours", "paper"))
    elif found:
        row, outcome = found[0]
        base, other = (Learning("tanh" if "tanh" in side.variant else "ReLU", side.train_errors) for side in outcome.curves)
        draw_speed(stem, (base, other), row.claim.until_train_error or 0)


def _line(row: Row, found: Outcome) -> Line:
    value, low, high = (100 * each for each in (found.top1.value, found.top1.low, found.top1.high))
    return Line(row.name.replace("-", " "), value, low, high, row.claim.paper.top1, found.verdict != "not resolved")


def shown(effect: Effect, unit: str) -> str:
    """An effect with its interval, in points of error or times."""
    numbers = (effect.value, effect.low, effect.high)
    if unit == "times":
        value, low, high = (exp(min(each, _MOST)) for each in numbers)
        return f"{value:.2g} times [{low:.2g}, {high:.2g}]"
    value, low, high = (100 * each for each in numbers)
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"
