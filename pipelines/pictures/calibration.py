"""The reliability diagram: how often the network is right when it is this sure."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from alexnet.inference.metrics import BINS, Calibration, calibration_error
from pipelines.pictures import style
from pipelines.pictures.style import BLUE, FAINT, GREY, ORANGE, PAGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEW = 20  # images, of which the accuracy says little


def draw_reliability(stem: Path, curve: Calibration, split: str) -> None:
    """Accuracy by confidence, the probability of the predicted class, in equal bins; the number of images of every bin.

    split: of the images, by its name for people.
    """
    count, filled, error = curve.images, curve.images > 0, calibration_error(curve)
    mean, accuracy = curve.confidence[filled], curve.accuracy[filled]

    def draw(figure: "Figure") -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        upper.plot([0, 1], [0, 1], ":", color=FAINT, linewidth=1.2, label="perfect calibration")
        upper.vlines(mean, mean, accuracy, color=ORANGE, linewidth=2, label="difference")
        few = count[filled] < _FEW
        kinds = ((~few, "a bin", BLUE), (few, f"a bin of fewer than {_FEW} images", PAGE))
        for which, label, face in kinds:
            if which.any():  # unclipped marks that are none upset the layout
                look = {"markerfacecolor": face, "markersize": 7, "clip_on": False, "zorder": 3}
                upper.plot(mean[which], accuracy[which], "o", color=BLUE, label=label, **look)
        upper.set_ylim(0, 1.02)
        upper.set_ylabel(f"accuracy on {split} images")
        upper.yaxis.set_major_formatter("{x:.0%}")
        upper.set_title(f"Reliability: expected calibration error {error:.2%}")
        upper.legend(loc="best")
        lower.bar((np.arange(BINS) + 0.5) / BINS, count, width=0.94 / BINS, color=GREY)
        lower.set_yscale("symlog", linthresh=1)
        lower.set_ylim(0, 4 * max(int(count.max()), 1))
        for place, images in enumerate(count):
            if images:
                lower.text((place + 0.5) / BINS, images, f"{images:,}", ha="center", va="bottom", size=7.5, color=FAINT)
        lower.set_yticks([], minor=False)
        lower.set_yticks([], minor=True)
        lower.set_ylabel("images (log)")
        lower.set_xlim(0, 1)
        lower.set_xlabel(f"probability of the predicted class, {BINS} equal bins")
        lower.xaxis.set_major_formatter("{x:.0%}")
        lower.grid(visible=False)

    style.save(stem, (style.WIDTH, 5.4), draw, f"Reliability diagram of {split} images; expected calibration error {error:.2%}")
