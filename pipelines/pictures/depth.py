"""What depth buys: the error of a linear classifier on every layer."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.pictures import style
from pipelines.pictures.style import BLUE, LINE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_depth(stem: Path, table: Path, split: str) -> None:
    """Top-1 error with its 95% interval of every row of the probe stage's probe.csv, from 0; the first is the pixels.

    split: on which it was measured, by its name for people.
    """
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    error, low, high = ([float(row[name]) for row in rows] for name in ("top1_error", "low", "high"))
    places = range(len(rows))

    def draw(figure: "Figure") -> None:
        from matplotlib.ticker import PercentFormatter

        axes = figure.subplots()
        axes.hlines(places, 0, low, color=LINE, linewidth=1)
        axes.hlines(places, low, high, color=BLUE, linewidth=2.5)
        axes.plot(error, places, "o", color=BLUE, markersize=7)
        for place, value, end in zip(places, error, high, strict=True):
            axes.text(end, place, f"  {value:.2%}", va="center", size=style.SMALL)
        axes.set_yticks(places, [style.drawable(row["layer"]) for row in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(0, 1.25 * max(high))
        axes.xaxis.set_major_formatter(PercentFormatter(1))
        axes.grid(visible=False, axis="y")
        axes.set_xlabel(f"top-1 error on {split} images, line: 95% interval")
        axes.set_title("A linear classifier on every layer", x=0)

    style.save(stem, (style.WIDTH, 1.3 + 0.32 * len(rows)), draw, "Top-1 error of a linear classifier on every layer")
