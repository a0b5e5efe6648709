"""The pictures of an evaluation: curves, conv1's kernels (figure 3), predictions (figure 4, left), confusions.

Equal evaluations are equal bytes: no times in the files, one font, every choice of an image by a digest.
"""

import csv
import hashlib
import logging
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from alexnet.inference.metrics import VIEWS_NAMES, Metrics, confusion_matrix
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.config import Views
from alexnet.loading.dataset import ShardDataset
from pipelines.evaluation.predictions import Predictions

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _FAINT, _GRID = "#20242c", "#6b7280", "#e5e7eb"
_BLUE, _ORANGE, _RED, _GREY = "#2f6db5", "#e08a2e", "#d1435b", "#b9c0cc"
_STYLE: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "text.color": _INK,
    "axes.edgecolor": _GRID,
    "axes.labelcolor": _FAINT,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _FAINT,
    "ytick.color": _FAINT,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "figure.constrained_layout.w_pad": 0.12,
    "figure.constrained_layout.h_pad": 0.06,
    "legend.frameon": False,
    "lines.linewidth": 2,
    "lines.solid_capstyle": "round",
}
_DPI = 144
_EXAMPLES, _MISTAKES, _COLUMNS = 8, 3, 4  # images with predictions, at most how many are mistakes, and images a row
_MAX_CELLS = 30  # classes of a confusion matrix that can still be read
_KERNELS_A_ROW = 16  # as in figure 3
_GREY_LEVELS = 0.5  # a mean image whose channels differ by less, on the scale 0 to 255, is that of grey images


def draw_all(
    folder: Path, model: Pretrained, samples: ShardDataset, predictions: Predictions, metrics: Metrics, history: Path
) -> None:
    """Every picture, as PNG; predictions and confusions by the protocol with the lower error."""
    names = [synset.name for synset in model.config.synsets]
    draw_curves(folder / "curves.png", history, metrics.baselines.ridge.top1_error)
    weight = next(tensor for name, _, tensor in model.network.parameter_slices() if name == "conv1.weight")
    draw_kernels(folder / "kernels.png", weight.detach().cpu(), model.config.model.towers, model.mean_image)
    views = metrics.best_views
    draw_predictions(folder / "predictions.png", samples, predictions, views, names)
    matrix = confusion_matrix(predictions.topk[views].labels[:, 0], predictions.labels, len(names))
    draw_confusion(folder / "confusion.png", matrix, names, VIEWS_NAMES[views])


def draw_curves(path: Path, history: Path, ridge_error: float) -> None:
    """Loss and error rates by epoch, the top-1 error of the ridge baseline, and the drops of the learning rate."""
    with history.open(newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    epochs = [row["epoch"] + 1 for row in rows]

    def draw(figure: "Figure") -> None:
        loss, error = figure.subplots(1, 2)
        _line(loss, epochs, rows, "train_loss", "training", _GREY)
        _line(loss, epochs, rows, "val_loss", "validation", _BLUE)
        loss.set_title("Loss")
        loss.set_ylim(bottom=0)
        _line(error, epochs, rows, "train_top1_error", "training, top-1", _GREY)
        _line(error, epochs, rows, "val_top1_error", "validation, top-1", _BLUE)
        _line(error, epochs, rows, "val_top5_error", "validation, top-5", _ORANGE)
        error.axhline(ridge_error, color=_FAINT, linewidth=1, linestyle=(0, (4, 3)))
        right = max(epochs)
        error.annotate(
            "ridge on thumbnails", (right, ridge_error), (0, 3), textcoords="offset points", ha="right", color=_FAINT, size=8
        )
        error.set_title("Error")
        error.set_ylim(0, min(1.0, 1.15 * max(ridge_error, *(row["val_top1_error"] for row in rows))))
        error.yaxis.set_major_formatter("{x:.0%}" if error.get_ylim()[1] > 0.1 else "{x:.1%}")
        for axes in (loss, error):
            _mark_drops(axes, epochs, [row["lr"] for row in rows])
            axes.set_xlabel("epoch")
            axes.xaxis.set_major_locator(_whole_numbers())
            axes.grid(visible=False, axis="x")
            axes.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, fontsize=8, handlelength=1.2, columnspacing=1.2)

    _save(path, (9.6, 3.6), draw)


def draw_kernels(
    path: Path, weight: Float[Tensor, "kernels 3 size size"], towers: int, mean_image: Float[Tensor, "side side 3"]
) -> None:
    """conv1's kernels, tower a above tower b; each on its own scale, grey where it is zero.

    Grey images have three equal channels, so that only the sum of a kernel's channels has an effect: then the sum is drawn.
    """
    is_grey = bool((mean_image.amax(2) - mean_image.amin(2)).max() < _GREY_LEVELS)
    if is_grey:
        weight = weight.sum(1, keepdim=True).expand(-1, 3, -1, -1)
    scaled = 0.5 + weight / (2 * weight.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12))
    sheets = [_tiles(part) for part in np.split(scaled.permute(0, 2, 3, 1).numpy(), towers)]

    def draw(figure: "Figure") -> None:
        for tower, (sheet, axes) in enumerate(zip(sheets, figure.subplots(towers, squeeze=False).flat, strict=True)):
            axes.imshow(sheet, interpolation="nearest")
            axes.axis("off")
            axes.set_title(f"Tower {'ab'[tower]}" if towers > 1 else "conv1", fontsize=10, pad=6)
            if is_grey and not tower:
                axes.set_title(
                    "summed over the channels: the images are grey", loc="right", color=_FAINT, size=8, weight="normal"
                )

    _save(path, (9.6, towers * (0.4 + 9.4 * sheets[0].shape[0] / sheets[0].shape[1])), draw)


def draw_predictions(path: Path, samples: ShardDataset, predictions: Predictions, views: Views, names: Sequence[str]) -> None:
    """Some images with the probabilities of their most probable classes as bars, the correct class red."""
    top, chosen = predictions.topk[views], choose(predictions, views)
    rows, bars = -(-len(chosen) // _COLUMNS), 0.23 * top.labels.shape[1]

    def draw(figure: "Figure") -> None:
        grid = figure.subplots(2 * rows, _COLUMNS, height_ratios=[2.1, bars] * rows, squeeze=False)
        for axes in grid.flat:
            axes.axis("off")
        for place, at in enumerate(chosen):
            row, column = divmod(place, _COLUMNS)
            image, chart = grid[2 * row, column], grid[2 * row + 1, column]
            image.imshow(_pixels(samples, at), interpolation="lanczos")
            image.set_title(_short(names[predictions.labels[at]]), loc="center", fontsize=9.5, pad=5)
            is_correct = top.labels[at] == predictions.labels[at]
            _bars(chart, [_short(names[label]) for label in top.labels[at]], top.probabilities[at], is_correct)

    _save(path, (9.8, rows * (2.9 + bars)), draw)


def choose(predictions: Predictions, views: Views) -> list[int]:
    """Images to show, in the order of their keys' digests: first correct predictions, then up to three mistakes."""
    order = sorted(range(len(predictions.keys)), key=lambda at: hashlib.sha256(predictions.keys[at].encode()).digest())
    is_correct = predictions.topk[views].labels[:, 0] == predictions.labels
    correct, mistakes = [at for at in order if is_correct[at]], [at for at in order if not is_correct[at]]
    last = mistakes[:_MISTAKES]
    return [*(correct + mistakes[len(last) :])[: _EXAMPLES - len(last)], *last]


def draw_confusion(path: Path, matrix: Int64[np.ndarray, "classes classes"], names: Sequence[str], views: str) -> None:
    """Which class was taken for which: a matrix, or the most frequent mistakes where a matrix could not be read."""
    if len(names) <= _MAX_CELLS:
        side = 3.2 + 0.42 * len(names)
        short = [_short(name) for name in names]
        _save(path, (side + 0.6, side), lambda figure: _matrix(figure.subplots(), matrix, short, views))
    else:
        _save(path, (9.6, 6.4), lambda figure: _mistakes(figure.subplots(), matrix, names, views))


def _matrix(axes: "Axes", matrix: Int64[np.ndarray, "classes classes"], names: list[str], views: str) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    share = matrix / np.maximum(matrix.sum(1, keepdims=True), 1)
    colors = LinearSegmentedColormap.from_list("blues", ["#f8fafc", "#c9daef", "#7fa8d6", _BLUE, "#1d4a80"])
    axes.imshow(np.sqrt(share), cmap=colors, vmin=0, vmax=1)  # the root: one mistake in a hundred can be seen
    for (row, column), count in np.ndenumerate(matrix):
        if count:
            color = "white" if share[row, column] > 0.3 else _INK
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=color, size=8)
    ticks = range(len(names))
    upright = max(map(len, names)) > 3
    axes.set_xticks(ticks, names, rotation=45 if upright else 0, ha="right" if upright else "center", rotation_mode="anchor")
    axes.set_yticks(ticks, names)
    axes.set_xlabel("taken for")
    axes.set_ylabel("is")
    axes.set_title(f"Confusions, images by {views}")
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def _mistakes(
    axes: "Axes", matrix: Int64[np.ndarray, "classes classes"], names: Sequence[str], views: str, count: int = 20
) -> None:
    off = matrix - np.diag(np.diag(matrix))
    pairs = [divmod(int(at), len(names)) for at in np.argsort(-off, axis=None, kind="stable")[:count]]
    pairs = [pair for pair in pairs if off[pair]][::-1]
    axes.barh(range(len(pairs)), [int(off[pair]) for pair in pairs], color=_BLUE, height=0.7)
    axes.set_yticks(range(len(pairs)), [f"{_short(names[is_])} taken for {_short(names[for_])}" for is_, for_ in pairs])
    axes.set_title(f"The most frequent mistakes, images by {views}")
    axes.grid(visible=False, axis="y")
    axes.xaxis.set_major_locator(_whole_numbers())


def _line(axes: "Axes", epochs: list[float], rows: list[dict[str, float]], name: str, label: str, color: str) -> None:
    axes.plot(
        epochs, [row[name] for row in rows], color=color, label=label, marker="o" if len(rows) < 20 else None, markersize=3.5
    )


def _mark_drops(axes: "Axes", epochs: list[float], rates: list[float]) -> None:
    for before, after, epoch in zip(rates, rates[1:], epochs[1:], strict=False):
        if after < before:
            axes.axvline(epoch - 0.5, color=_GRID, linewidth=1.2, zorder=0)
            axes.annotate(
                f"lr {after:g}", (epoch - 0.5, 0.95), (3, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
                color=_FAINT, size=7,
            )  # fmt: skip


def _bars(axes: "Axes", names: list[str], probabilities: Float[np.ndarray, " k"], is_correct: Bool[np.ndarray, " k"]) -> None:
    places = range(len(names))[::-1]
    axes.barh(places, probabilities, color=np.where(is_correct, _RED, _GREY), height=0.78)
    for place, name, value in zip(places, names, probabilities, strict=True):
        axes.text(0.02, place, name, va="center", size=8)
        shown = f"{value:.0%}" if value >= 0.01 else f"{value:.1%}"
        on_bar = value > 0.85
        axes.text(1.0, place, shown, va="center", ha="right", color=_INK if on_bar else _FAINT, size=7)
    axes.set_xlim(0, 1)


def _tiles(kernels: Float[np.ndarray, "n size size 3"]) -> Float[np.ndarray, "h w 3"]:
    """Kernels in rows, with white lines between them, each of their pixels 6 pixels wide."""
    large = np.pad(kernels.repeat(6, axis=1).repeat(6, axis=2), ((0, 0), (0, 6), (0, 6), (0, 0)), constant_values=1)
    columns = min(len(large), _KERNELS_A_ROW)
    large = np.pad(large, ((0, -len(large) % columns), (0, 0), (0, 0), (0, 0)), constant_values=1)
    rows, side = len(large) // columns, large.shape[1]
    return large.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)[:-6, :-6]


def _pixels(samples: ShardDataset, at: int) -> UInt8[np.ndarray, "side side 3"]:
    pixels = np.empty((samples.side_px, samples.side_px, 3), np.uint8)
    (number,), (row,) = samples.shards_and_rows(np.array([at]))
    samples.decode(number, row, pixels)
    return pixels


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)


def _short(name: str) -> str:
    """The first of a synset's names, cut to fit a bar."""
    return textwrap.shorten(name.partition(",")[0], 24, placeholder="…") or name[:24]


def _save(path: Path, inches: tuple[float, float], draw: Callable[["Figure"], None]) -> None:
    """Writes what `draw` draws, without the time or matplotlib's version."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # on the first run it reports that it builds a font cache
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(inches, layout="constrained", dpi=_DPI)
        FigureCanvasAgg(figure)
        draw(figure)
        figure.savefig(path, metadata={"Software": None})
