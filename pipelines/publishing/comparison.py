"""How a network compares with the champion on the same images, and the rule by which it may replace it."""

from dataclasses import dataclass

from pipelines.evaluation import intervals
from pipelines.evaluation.results import Estimate


@dataclass(frozen=True)
class Comparison:
    """Top-1 errors by the center crop. paired: the first is this network, the second the champion."""

    error: Estimate
    champion_error: Estimate
    paired: intervals.Paired


def decide(comparison: Comparison, margin: float) -> tuple[bool, str]:
    """The rule: whether a network is not worse than the champion, and in words."""
    difference = comparison.paired.difference
    if difference.value <= 0:
        return True, "not worse"
    if difference.high < margin:
        return True, f"worse by less than the margin of {100 * margin:.2f} points"
    return False, f"worse, and not surely by less than the margin of {100 * margin:.2f} points"


def describe(comparison: Comparison, champion: str) -> str:
    """The numbers, in a line."""
    paired, difference = comparison.paired, comparison.paired.difference
    return (
        f"top-1 error {comparison.error.value:.2%} beside {comparison.champion_error.value:.2%} of {champion}, on the same "
        f"{paired.images:,} validation images ({paired.only_first_wrong:,} wrong by this one only, "
        f"{paired.only_second_wrong:,} by that one only), a difference of {100 * difference.value:+.2f} "
        f"points ({100 * difference.low:+.2f} to {100 * difference.high:+.2f}), p = {paired.p_value:.2g}"
    )
