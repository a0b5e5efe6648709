"""Figure 1 of the paper, drawn again: training error by epoch, the rectified side solid, the other dashed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pipelines.pictures import style
from pipelines.pictures.style import BLUE, FAINT, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Learning:
    """A side: its name and its training errors, fractions, an epoch each, a seed each."""

    label: str
    train_errors: Sequence[Sequence[float]]


def draw_speed(stem: Path, sides: tuple[Learning, Learning], target: float) -> None:
    """The mean over seeds, every seed as a thin line, and a dotted line at the training error that counts."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for side, color, dashes in zip(sides, (BLUE, ORANGE), ("-", "--"), strict=True):
            epochs = range(1, len(side.train_errors[0]) + 1)
            for errors in side.train_errors:
                axes.plot(epochs, errors, color=color, linewidth=0.8, alpha=0.5)
            axes.plot(epochs, np.mean(side.train_errors, 0), dashes, color=color, label=side.label)
        axes.axhline(target, color=FAINT, linewidth=1.2, linestyle=":", label=f"{target:.0%} of the training images wrong")
        axes.set_ylim(0, 1)
        axes.set_xlim(1, None)
        axes.yaxis.set_major_formatter("{x:.0%}")
        axes.set_xlabel("epoch")
        axes.set_ylabel("training error")
        style.whole_numbers(axes.xaxis)
        axes.legend(loc="upper right", handlelength=2.6)

    style.save(stem, (style.WIDTH, 3.4), draw, "Training error by epoch")
