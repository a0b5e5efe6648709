"""A forest plot: effects with their intervals, one below the other."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.pictures import style
from pipelines.pictures.style import BLUE, FAINT, GREY, INK, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """An effect with its interval. reference: what it is measured against, such as the paper's; None: nothing."""

    label: str
    value: float
    low: float
    high: float
    reference: float | None
    resolved: bool


_FAR = 5  # times the middle one of the intervals' ends: one that goes further is cut off, and its numbers are written


def draw_forest(stem: Path, lines: Sequence[Line], unit: str, names: tuple[str, str]) -> None:
    """Filled where it is resolved, hollow where not. names: of the effects and of what they are measured against."""
    reach = _reach(lines)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.axvline(0, color=FAINT, linewidth=1.2)
        for place, line in enumerate(lines):
            color = BLUE if line.resolved else GREY
            axes.plot([max(line.low, -reach), min(line.high, reach)], [place, place], color=color, linewidth=2)
            for end, marker in ((line.low, "<"), (line.high, ">")):
                if abs(end) > reach:
                    axes.plot(reach if end > 0 else -reach, place, marker, color=color, markersize=6.5)
            face = color if line.resolved else style.PAGE
            if abs(line.value) <= reach:
                axes.plot(line.value, place, "o", color=color, markerfacecolor=face, markersize=6.5)
            if max(-line.low, line.high) > reach:
                numbers = f"{line.value:+.1f} [{line.low:+.1f}, {line.high:+.1f}]"
                axes.text(reach, place - 0.2, numbers, color=INK, ha="right", va="bottom", fontsize="small")
            if line.reference is not None:
                axes.plot(line.reference, place, "D", color=ORANGE, markersize=5)
        axes.plot([], [], "o", markersize=5.5, color=BLUE, label=names[0])
        axes.plot([], [], "D", markersize=5.5, color=ORANGE, label=names[1])
        axes.plot([], [], "o", markersize=5.5, color=GREY, markerfacecolor=style.PAGE, label="not resolved")
        axes.set_yticks(range(len(lines)), [line.label for line in lines], color=INK)
        axes.set_ylim(len(lines) - 0.5, -0.5)
        axes.set_xlabel(unit)
        axes.grid(visible=False, axis="y")
        axes.spines.left.set_visible(False)
        figure.legend(loc="outside upper left", ncols=3, handletextpad=0.2, columnspacing=1.2, borderaxespad=0.4)

    style.save(stem, (style.WIDTH, 1.1 + 0.3 * len(lines)), draw, f"Effects with 95% intervals, {unit}")


def _reach(lines: Sequence[Line]) -> float:
    """How far from 0 intervals are drawn."""
    ends = sorted(max(-line.low, line.high, abs(line.reference or 0)) for line in lines)
    return 1.1 * max(end for end in ends if end <= _FAR * ends[len(ends) // 2])
