"""Which class was taken for which: a matrix, or the most frequent confusions where a matrix could not be read."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Int64

from pipelines.pictures import style
from pipelines.pictures.style import BLUE, FAINT, INK, LINE, PAGE, STEPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Matrix = Int64[np.ndarray, "classes classes"]
_MAX_CLASSES = 20  # of a matrix whose numbers can still be read on a phone
_MOST = 20  # confusions that are listed
# Shares of a true class's images at which the scale takes its next color: mistakes of one in a hundred are seen.
_BOUNDS = (0.01, 0.05, 0.2, 0.5, 0.9)


def draw_confusion(stem: Path, matrix: Matrix, names: Sequence[str], views: str, split: str) -> None:
    """A matrix of up to 20 classes, true classes down and predicted ones across, or the 20 most frequent confusions of more.

    views, split: the protocol and the images' split, by their names for people.
    """
    if len(names) <= _MAX_CLASSES:
        side = style.WIDTH + 0.12 * max(0, len(names) - 12)
        title = f"Confusion matrix of {matrix.sum():,} {split} images by the {views}"
        style.save(stem, (side, side + 0.75), lambda figure: _matrix(figure, matrix, names, views, split), title)
    else:
        title = f"The most frequent confusions of {len(names):,} classes by the {views}"
        style.save(stem, (style.WIDTH, 6.8), lambda figure: _list(figure.subplots(), matrix, names, views, split), title)


def _matrix(figure: "Figure", matrix: Matrix, names: Sequence[str], views: str, split: str) -> None:
    from matplotlib.patches import Rectangle

    axes, legend = figure.subplots(2, 1, height_ratios=[1, 0.04])
    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    roles = {"ink": INK, "page": PAGE}
    small = style.SMALL if len(names) <= 12 else 7.5
    for (row, column), count in np.ndenumerate(matrix):
        (color, _), text = STEPS[int(np.searchsorted(_BOUNDS, share[row, column], side="right")) if count else 0]
        axes.add_patch(Rectangle((column - 0.48, row - 0.48), 0.96, 0.96, facecolor=color, edgecolor="none"))
        if count:
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=roles[text], size=small)
    shown = [style.short(name, 15) for name in names]
    upright = max(map(len, shown)) > 3
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_aspect("equal")
    places = range(len(names))
    axes.set_xticks(places, shown, size=small, rotation=90 if upright else 0)
    axes.set_yticks(places, shown, size=small)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"Confusions by the {views}")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    _scale(legend, split)


def _scale(axes: "Axes", split: str) -> None:
    """The colors with the shares they stand for."""
    edges = (0, *_BOUNDS, 1)
    for step, ((color, _), _) in enumerate(STEPS):
        axes.barh(0, 0.96, left=step + 0.02, color=color, height=1)
    axes.set_xlim(0, len(STEPS))
    axes.set_xticks(range(len(edges)), [f"{edge:.0%}" for edge in edges], size=style.SMALL)
    axes.set_yticks([])
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.set_xlabel(f"number: {split} images; color: their share of the true class", size=style.SMALL)


def _list(axes: "Axes", matrix: Matrix, names: Sequence[str], views: str, split: str) -> None:
    off = matrix - np.diag(np.diag(matrix))
    pairs = [divmod(int(at), len(names)) for at in np.argsort(-off, axis=None, kind="stable")[:_MOST]]
    pairs = [pair for pair in pairs if off[pair]]
    most = max((int(off[pair]) for pair in pairs), default=1)
    for place, (true, predicted) in enumerate(pairs):
        axes.barh(place + 0.3, most, color=LINE, height=0.22)
        axes.barh(place + 0.3, int(off[true, predicted]), color=BLUE, height=0.22)
        text = f"{style.short(names[true], 24)} → {style.short(names[predicted], 24)}"
        axes.text(0, place + 0.1, text, size=style.SMALL)
        axes.text(most, place + 0.1, f"{off[true, predicted]:,}", ha="right", size=style.SMALL, color=FAINT)
    axes.set_ylim(max(len(pairs), 1) - 0.4, -0.7)
    axes.axis("off")
    shown = int(sum(off[pair] for pair in pairs))
    axes.set_title(
        f"True class → predicted class by the {views}\nthe {len(pairs)} most frequent: {shown:,} of {off.sum():,} mistakes\n"
        f"{len(names):,} classes, {matrix.sum():,} {split} images; number and bar: images",
        weight="normal", size=style.SMALL,
    )  # fmt: skip
