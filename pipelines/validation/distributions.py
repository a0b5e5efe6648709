"""How the images of an index are distributed: over classes, sizes, aspects, formats and brightness."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa

_SIDES = [0, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096]  # pixels
_ASPECTS = {  # the least width over height of each
    "taller than 4:1": 0.0,
    "4:1 to 2:1 tall": 1 / 4,
    "2:1 to 4:3 tall": 1 / 2,
    "about square": 3 / 4,
    "4:3 to 2:1 wide": 4 / 3,
    "2:1 to 4:1 wide": 2.0,
    "wider than 4:1": 4.0,
}
_CLASSES = 40  # that have a row each; of more, how large they are
_FORMS = 12


@dataclass(frozen=True)
class Distribution:
    """Counts by value. unit: of what."""

    title: str
    unit: str
    rows: list[tuple[str, int]]

    @property
    def most(self) -> int:
        """The largest count, at least 1."""
        return max([1, *(count for _, count in self.rows)])


def distributions(table: pa.Table, names: dict[str, str], brightness: Sequence[float]) -> list[Distribution]:
    """Of all images whose header can be read, and of the brightness of some; classes by the images that are used."""
    rows = table.select(["wnid", "width", "height", "format", "mode", "action"]).to_pandas()
    used, known = rows[rows["action"].isin(["use", "repair"])], rows[rows["width"] > 0]
    sides = known[["width", "height"]].min(axis=1).to_numpy()
    aspects = (known["width"] / known["height"]).to_numpy()
    forms = (known["format"] + " " + known["mode"]).value_counts()
    top = forms.index[:_FORMS]
    tenths = [f"{low / 10:.1f} to {low / 10 + 0.1:.1f}" for low in range(10)]
    return [
        _of_classes(used["wnid"].value_counts().reindex(sorted(names), fill_value=0), names),
        Distribution("Shorter side", "images, in pixels", _binned(sides, _SIDES, _ranges(_SIDES))),
        Distribution("Aspect", "images, width to height", _binned(aspects, [*_ASPECTS.values()], [*_ASPECTS])),
        Distribution("Format", "images, by format and Pillow's mode", [(str(form), int(forms[form])) for form in top]),
        Distribution(
            "Brightness",
            f"of {len(brightness):,} used images drawn by digest, mean luma from 0, black, to 1",
            _binned(np.array(brightness), np.arange(10) / 10, tenths),
        ),
    ]


def _of_classes(counts: "pd.Series[int]", names: dict[str, str]) -> Distribution:
    if len(counts) <= _CLASSES:
        return Distribution("Classes", "used images", [(names[str(wnid)], int(count)) for wnid, count in counts.items()])
    edges = sorted({*np.linspace(counts.min(), counts.max() + 1, 11).astype(int).tolist()})[:-1]
    return Distribution("Classes", "classes, by their used images", _binned(counts.to_numpy(), edges, _ranges(edges)))


def _ranges(edges: Sequence[int]) -> list[str]:
    whole = [f"{low:,} to {high - 1:,}" if high - 1 > low else f"{low:,}" for low, high in pairwise(edges)]
    return [*whole, f"{edges[-1]:,} and more"]


def _binned(values: np.ndarray, edges: Sequence[float] | np.ndarray, labels: Sequence[str]) -> list[tuple[str, int]]:
    """How many values are at least each edge and below the next; without empty rows at both ends."""
    counts = np.bincount(np.searchsorted(edges, values, "right") - 1, minlength=len(edges))
    full = np.flatnonzero(counts)
    kept = range(full[0], full[-1] + 1) if len(full) else range(0)
    return [(labels[at], int(counts[at])) for at in kept]
