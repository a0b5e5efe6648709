"""Images with the network's five best classes (figure 4, left), and the mistakes of which it was most sure."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from alexnet.inference.metrics import TopK
from alexnet.loading.dataset import ShardDataset
from pipelines.pictures import style
from pipelines.pictures.style import BLUE, FAINT, GREY, LINE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SURE, _UNSURE, _WRONG = 3, 2, 3  # images of each kind, where there are so many
_COLUMNS = 2
_LINE = 0.3  # inches of a class and its bar


@dataclass(frozen=True)
class Chosen:
    """An image to show, by its index, and why."""

    at: int
    kind: str


def choose(keys: Sequence[str], top: TopK, labels: Int64[np.ndarray, " n"]) -> list[Chosen]:
    """Up to eight images: three right and sure, two right and unsure, three wrong; others stand in for a kind that lacks some.

    Sure: as probable as half of the right ones, or more; unsure: the least probable of the right ones. The others are drawn by
    the digests of their keys.
    """
    drawn = sorted(range(len(keys)), key=lambda at: hashlib.sha256(keys[at].encode()).digest())
    best, is_right = top.probabilities[:, 0], top.labels[:, 0] == labels
    right = [at for at in drawn if is_right[at]]
    unsure = sorted(right, key=lambda at: best[at])[: _UNSURE if len(right) > _SURE else 0]
    median = float(np.median(best[is_right])) if right else 0.0
    sure = [at for at in right if best[at] >= median and at not in unsure]
    wrong = [at for at in drawn if not is_right[at]]
    count = _SURE + _UNSURE + _WRONG
    sure = sure[: max(_SURE, count - len(unsure) - len(wrong[:_WRONG]))]
    wrong = wrong[: count - len(sure) - len(unsure)]
    named = (("right, and sure", sure), ("right, and unsure", unsure), ("wrong", wrong))
    return [Chosen(at, kind) for kind, found in named for at in found]


def confident_mistakes(top: TopK, labels: Int64[np.ndarray, " n"], count: int = 8) -> list[Chosen]:
    """The wrong answers of the highest probability, highest first."""
    wrong = np.flatnonzero(top.labels[:, 0] != labels)
    order = wrong[np.argsort(-top.probabilities[wrong, 0], kind="stable")][:count]
    return [Chosen(int(at), "wrong") for at in order]


@dataclass(frozen=True)
class Shown:
    """What a picture of predictions is drawn from. split: its name for people."""

    samples: ShardDataset
    split: str
    top: TopK
    labels: Int64[np.ndarray, " n"]
    names: Sequence[str]

    @property
    def mistakes(self) -> str:
        """Their share, in words."""
        wrong, count = int((self.top.labels[:, 0] != self.labels).sum()), len(self.labels)
        return f"{wrong:,} of {count:,} {self.split} images are wrong by the center crop ({wrong / count:.2%})"


def draw_predictions(stem: Path, shown: Shown, chosen: Sequence[Chosen], title: str) -> None:
    """Images under their true class, with the most probable classes as bars; the true class blue and ticked."""
    classes, rows = shown.top.labels.shape[1], -(-len(chosen) // _COLUMNS)
    each = 2.25 + _LINE * classes  # inches
    height, width = 0.75 + rows * each, style.WIDTH / _COLUMNS

    def draw(figure: "Figure") -> None:
        figure.set_layout_engine("none")
        figure.text(0.02, 1 - 0.28 / height, title, weight="bold", size=11.5)
        figure.text(0.02, 1 - 0.5 / height, shown.mistakes, size=style.SMALL, color=FAINT)
        for place, one in enumerate(chosen):
            row, column = divmod(place, _COLUMNS)
            left, top = column * width / style.WIDTH, 1 - (0.75 + row * each) / height
            middle, label = left + 0.5 / _COLUMNS, shown.labels[one.at]
            figure.text(middle, top - 0.2 / height, style.short(shown.names[label]), ha="center", weight="bold", size=11.5)
            figure.text(middle, top - 0.38 / height, one.kind, ha="center", size=style.SMALL, color=FAINT)
            image = figure.add_axes((middle - 0.65 / style.WIDTH, top - 1.76 / height, 1.3 / style.WIDTH, 1.3 / height))
            style.show_image(image, style.thumbnail(pixels(shown.samples, one.at)))
            names = [shown.names[other] for other in shown.top.labels[one.at]]
            bars = figure.add_axes((left + 0.02, top - (1.9 + _LINE * classes) / height, 0.46, _LINE * classes / height))
            draw_bars(bars, names, shown.top.probabilities[one.at], shown.top.labels[one.at] == label)

    style.save(stem, (style.WIDTH, height), draw, f"{title}. {shown.mistakes}.")


def draw_bars(axes: "Axes", names: Sequence[str], probabilities: Float32[np.ndarray, " k"], is_true: np.ndarray) -> None:
    """A line of text and a bar below it for every class; the true class is blue and has a tick."""
    axes.axis("off")
    for place, (name, value, true) in enumerate(zip(names, probabilities, is_true, strict=True)):
        color = BLUE if true else GREY
        axes.barh(place + 0.3, 1, color=LINE, height=0.22)
        axes.barh(place + 0.3, value, color=color, height=0.22)
        weight = "bold" if true else "normal"
        axes.text(0, place + 0.1, f"{style.short(name, 19)}{' ✓' if true else ''}", size=style.SMALL, weight=weight)
        axes.text(1, place + 0.1, style.percent(float(value)), ha="right", size=style.SMALL, color=FAINT)
    axes.set_xlim(0, 1)
    axes.set_ylim(len(names) - 0.5, -0.6)


def pixels(samples: ShardDataset, at: int) -> UInt8[np.ndarray, "side side 3"]:
    """An image of a split by its index, as it is in its shard."""
    out = np.empty((samples.side_px, samples.side_px, 3), np.uint8)
    (number,), (row,) = samples.shards_and_rows(np.array([at]))
    samples.decode(number, row, out)
    return out
