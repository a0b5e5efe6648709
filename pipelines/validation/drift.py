"""What changed in the data since a release: its index and pixel statistics beside the present ones.

Only images that are used count. A distance is of two distributions, from 0, the same, to 1, nothing in common: Kolmogorov and
Smirnov's for numbers, half the sum of absolute differences of shares for classes and kinds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from alexnet.images.statistics import PixelStatistics
from pipelines.validation import index

FILES = ("index.parquet", "pixels.npz")  # of a release, in the order of `Data`
NOTABLE = 0.1  # a distance from which on a row is marked
_NUMBERS = {"shorter side, px": "side", "aspect, longer over shorter side": "aspect", "file size, bytes": "bytes"}
_KINDS = {"color mode": "mode", "file format": "format", "fault": "faults"}
_CLASSES = 5  # classes of the largest change that get a row


@dataclass(frozen=True)
class DriftRow:
    """A quantity then and now: a count, share, median or mean. distance: of its distributions, if any. note: for people."""

    quantity: str
    before: float
    now: float
    distance: float | None = None
    note: str = ""

    @property
    def notable(self) -> bool:
        """Whether the distributions are so far apart that somebody should look."""
        return self.distance is not None and self.distance >= NOTABLE


@dataclass(frozen=True)
class Data:
    """The data of a run: the files that the validate and shard stages made."""

    index: Path
    pixels: Path


def drift(before: Data, now: Data) -> tuple[DriftRow, ...]:
    """The rows of the table; none if the images that are used, their splits and classes are the same.

    Raises:
        DataError: a file is missing, or damaged.
    """
    then, today = (_used(data.index) for data in (before, now))
    same = ["split", "wnid", "sha256"]
    if then[same].sort_values(same).reset_index(drop=True).equals(today[same].sort_values(same).reset_index(drop=True)):
        return ()
    return (
        *_counts(then, today),
        *_classes(then, today),
        *_numbers(then, today),
        *_kinds(then, today),
        _brightness(PixelStatistics.read(before.pixels), PixelStatistics.read(now.pixels)),
    )


def markdown(rows: Sequence[DriftRow]) -> str:
    """The table, for a terminal too."""
    cells: list[tuple[str, ...]] = [("", "before", "now", "distance", ""), ("---", "--:", "--:", "--:", "---")]
    cells += [(row.quantity, _text(row.before), _text(row.now), _distance(row), row.note) for row in rows]
    cells = [tuple(cell.replace("|", r"\|") for cell in row) for row in cells]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in cells
    )


def _text(value: float) -> str:
    return f"{value:,.0f}" if value == round(value) else f"{value:,.4g}"


def _distance(row: DriftRow) -> str:
    return "" if row.distance is None else f"{row.distance:.3f}{' (!)' if row.notable else ''}"


def _used(path: Path) -> pd.DataFrame:
    columns = ["split", "wnid", "sha256", "width", "height", "bytes", "mode", "format", "faults", "action"]
    rows = index.read(path).select(columns).to_pandas()
    rows = rows[rows["action"].isin(["use", "repair"])]
    sides = rows[["width", "height"]]
    return rows.assign(
        side=sides.min(axis=1), aspect=sides.max(axis=1) / sides.min(axis=1), faults=rows["faults"].fillna("none")
    )


def _counts(then: pd.DataFrame, today: pd.DataFrame) -> Iterator[DriftRow]:
    old, new = set(then["sha256"]), set(today["sha256"])
    yield DriftRow("images", len(then), len(today), None, f"{len(new - old):,} new, {len(old - new):,} gone")
    for split in ("train", "val", "test"):
        before, now = (int((rows["split"] == split).sum()) for rows in (then, today))
        if before or now:
            yield DriftRow(f"images of {split}", before, now)


def _classes(then: pd.DataFrame, today: pd.DataFrame) -> Iterator[DriftRow]:
    shares = _shares(then["wnid"], today["wnid"])
    before, now = ((shares[side] > 0).sum() for side in ("then", "today"))
    new, gone = shares.index[shares["then"] == 0], shares.index[shares["today"] == 0]
    note = "; ".join(f"{what} {_list(each)}" for what, each in (("new:", new), ("gone:", gone)) if len(each))
    yield DriftRow("classes", int(before), int(now), _apart(shares), note)
    change = (shares["today"] - shares["then"]).abs().sort_values(ascending=False, kind="stable")
    for wnid in change.index[change > 0][:_CLASSES]:
        yield DriftRow(f"share of class {wnid}", float(shares["then"][wnid]), float(shares["today"][wnid]))


def _numbers(then: pd.DataFrame, today: pd.DataFrame) -> Iterator[DriftRow]:
    from scipy.stats import ks_2samp

    for name, column in _NUMBERS.items():
        distance = float(ks_2samp(then[column], today[column], method="asymp").statistic)
        yield DriftRow(name, float(then[column].median()), float(today[column].median()), distance, "medians")


def _kinds(then: pd.DataFrame, today: pd.DataFrame) -> Iterator[DriftRow]:
    for name, column in _KINDS.items():
        shares = _shares(then[column].astype(str), today[column].astype(str))
        most = shares.sum(axis=1).idxmax()
        distance = _apart(shares)
        if len(shares) > 1:
            yield DriftRow(f"{name}: share of {most}", float(shares["then"][most]), float(shares["today"][most]), distance)


def _brightness(then: PixelStatistics, today: PixelStatistics) -> DriftRow:
    before, now = (float(each.channel_mean.mean()) for each in (then, today))
    contrasts = " to ".join(f"{each.channel_std.mean():.1f}" for each in (then, today))
    return DriftRow("brightness, 0 to 255", before, now, None, f"mean of training pixels; standard deviation {contrasts}")


def _shares(then: pd.Series, today: pd.Series) -> pd.DataFrame:
    """The share of every value, then and today."""
    counts = {"then": then.value_counts(normalize=True), "today": today.value_counts(normalize=True)}
    return pd.DataFrame(counts).fillna(0.0).sort_index()


def _apart(shares: pd.DataFrame) -> float:
    return float((shares["today"] - shares["then"]).abs().sum() / 2)


def _list(values: pd.Index) -> str:
    return ", ".join(map(str, values[:_CLASSES])) + (" ..." if len(values) > _CLASSES else "")
