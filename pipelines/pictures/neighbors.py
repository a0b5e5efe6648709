"""Images with their nearest training images by the last hidden layer (figure 4, right)."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq

from alexnet.loading.dataset import ShardDataset
from pipelines.pictures import style
from pipelines.pictures.predictions import pixels
from pipelines.pictures.style import FAINT, INK, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_QUERIES, _NEIGHBORS = 6, 6
_HEAD, _ROW = 0.9, 1.13  # inches
_MARGIN = 0.02  # of the width
_THUMBNAIL_PX = 128


def draw_neighbors(stem: Path, table: Path, split: str, samples: tuple[ShardDataset, ShardDataset]) -> None:
    """Six queries of different classes, as far as there are, each beside its six nearest training images, nearest first.

    table: neighbors.parquet of the probe stage. split: the queries', by its name for people. samples: of that split, and of
    training. A neighbor of another class than the query's is named in orange.
    """
    rows = pq.read_table(table).to_pylist()
    chosen = choose(rows)
    same = np.mean([label == row["label"] for row in rows for label in row["neighbor_labels"]])
    about = f"{style.percent(float(same))} of the neighbors of {len(rows):,} {split} images are of their class"

    def draw(figure: "Figure") -> None:
        figure.set_layout_engine("none")
        height = figure.get_figheight()
        figure.text(_MARGIN, 1 - 0.28 / height, "Nearest training images", weight="bold", size=11.5)
        notes = f"{about}\nUnder each its class and distance; orange: another class"
        figure.text(_MARGIN, 1 - 0.4 / height, notes, size=style.SMALL, color=FAINT, va="top", linespacing=1.4)
        for number, row in enumerate(chosen):
            _draw_row(figure, row, 1 - (_HEAD + _ROW * number) / height, samples)

    title = f"{split.capitalize()} images, left, and their nearest training images by L2 distance in the last hidden layer"
    style.save(stem, (style.WIDTH, _HEAD + 0.03 + _ROW * len(chosen)), draw, f"{title}. {about}.")


def choose(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The first query of every class, in the table's order; then others, up to six."""
    by_class: dict[int, dict[str, Any]] = {}
    for row in rows:
        by_class.setdefault(row["label"], row)
    firsts = list(by_class.values())
    others = [row for row in rows if row not in firsts]
    return [*firsts, *others][:_QUERIES]


def _draw_row(figure: "Figure", row: dict[str, Any], top: float, samples: tuple[ShardDataset, ShardDataset]) -> None:
    """A query, larger spaced than its neighbors, each above its class and distance. top: a fraction of the figure's height."""
    judged, train = samples
    width, height = (1 - 1.5 * _MARGIN) / (1.15 + _NEIGHBORS), figure.get_figheight()
    side = 0.92 * width * style.WIDTH / height
    near = zip(row["neighbor_samples"], row["neighbor_names"], row["distances"], strict=True)
    places = [(0.0, judged, row["sample"], row["name"], "query")]
    places += [(1.15 + at, train, sample, name, f"{distance:#.3g}") for at, (sample, name, distance) in enumerate(near)]
    for place, source, sample, name, note in places[: _NEIGHBORS + 1]:
        left = _MARGIN + place * width
        axes = figure.add_axes((left, top - side, 0.92 * width, side))
        style.show_image(axes, style.thumbnail(pixels(source, sample), _THUMBNAIL_PX))
        other = name != row["name"]
        middle = left + 0.46 * width
        color, weight = (ORANGE, "bold") if other else (INK, "normal")
        figure.text(middle, top - side - 0.14 / height, style.short(name, 10), size=8, color=color, weight=weight, ha="center")
        figure.text(middle, top - side - 0.27 / height, note, size=8, color=FAINT, ha="center")
