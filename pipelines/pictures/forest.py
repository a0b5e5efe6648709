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


def draw_forest(stem: Path, lines: Sequence[Line], unit: str, names: tuple[str, str]) -> None:
    """Filled where it is resolved, hollow where not. names: of the effects and of what they are measured against."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.axvline(0, color=FAINT, linewidth=1.2)
        for place, line in enumerate(lines):
            color = BLUE if line.resolved else GREY
            axes.plot([line.low, line.high], [place, place], color=color, linewidth=2)
            face = color if line.resolved else style.PAGE
            axes.plot(line.value, place, "o", color=color, markerfacecolor=face, markersize=6.5)
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
