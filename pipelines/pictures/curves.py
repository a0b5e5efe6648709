"""Loss and error rates by epoch."""

import csv
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from pipelines.pictures import style
from pipelines.pictures.style import BLUE, FAINT, GREY, LINE, ORANGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, float]


def draw_curves(stem: Path, history: Path, ridge_error: float | None) -> None:
    """Loss and error rates by epoch, counted from 1, with the ridge baseline's top-1 error and the drops of the learning rate.

    Both axes start at 0 and hold every value.
    """
    with history.open(encoding="utf-8", newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]

    def draw(figure: "Figure") -> None:
        loss, error = figure.subplots(2, 1, sharex=True)
        _line(loss, rows, "train_loss", "training", (GREY, "--"))
        _line(loss, rows, "val_loss", "validation", (BLUE, "-"))
        loss.set_title("Loss")
        _line(error, rows, "train_top1_error", "training, top-1", (GREY, "--"))
        _line(error, rows, "val_top1_error", "validation, top-1", (BLUE, "-"))
        _line(error, rows, "val_top5_error", "validation, top-5", (ORANGE, "-."))
        if ridge_error is not None:
            error.axhline(ridge_error, color=FAINT, linewidth=1.2, linestyle=":", label="ridge on thumbnails, top-1")
        error.set_title("Error")
        for axes in (loss, error):
            _mark_drops(axes, rows, named=axes is loss)
            axes.set_ylim(0, 1.06 * axes.dataLim.y1 or 1)
            axes.grid(visible=False, axis="x")
            ends = max(line.get_ydata()[-1] for line in axes.get_legend_handles_labels()[0][:2])
            free = "upper right" if ends < 0.6 * axes.get_ylim()[1] else "lower left"
            axes.legend(loc=free, handlelength=2.2, labelspacing=0.25, borderaxespad=0.2)
        error.yaxis.set_major_formatter("{x:.0%}" if error.get_ylim()[1] > 0.1 else "{x:.1%}")
        error.set_xlabel("epoch")
        style.whole_numbers(error.xaxis)

    style.save(stem, (style.WIDTH, 5.6), draw, "Loss and error rates by epoch")


def _line(axes: "Axes", rows: list[Row], name: str, label: str, look: tuple[str, str]) -> None:
    color, dashes = look
    marker = "o" if len(rows) < 20 else None
    epochs = [row["epoch"] + 1 for row in rows]
    axes.plot(
        epochs, [row[name] for row in rows], dashes, color=color, label=label, marker=marker, markersize=3.5, clip_on=False
    )


def _mark_drops(axes: "Axes", rows: list[Row], *, named: bool) -> None:
    """A line where the learning rate of the weights falls, with the new rate at its head."""
    for before, after in pairwise(rows):
        if after["lr"] < before["lr"]:
            place = after["epoch"] + 0.5
            axes.axvline(place, color=LINE, linewidth=1.2, zorder=0)
            if named:
                axes.annotate(
                    f"lr {after['lr']:g}", (place, 1), (0, 4), xycoords=("data", "axes fraction"), textcoords="offset points",
                    color=FAINT, size=style.SMALL, ha="right",
                )  # fmt: skip
