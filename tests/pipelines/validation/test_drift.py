"""What changed in the data: tables made by hand beside one another."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from alexnet.errors import DataError
from pipelines.validation import index
from pipelines.validation.drift import Data, DriftRow, drift, markdown
from tests.support.trained_folder import PIXELS


def make(folder: Path, images: int = 40, brightness: float = 0.0, **changes: Any) -> Data:
    """An index of images of two classes, a quarter of them validation, with these values in columns."""
    folder.mkdir()
    rows = [
        {
            "key": f"k{i}",
            "split": "val" if i % 4 == 3 else "train",
            "wnid": f"n{i % 2}",
            "label": i % 2,
            "path": f"{i}.jpg",
            "offset": 0,
            "bytes": 1000 + i % 4,
            "sha256": f"{i:064x}",
            "width": 300 + i % 4,
            "height": 200,
            "mode": "RGB",
            "format": "JPEG",
            "frames": 1,
            "orientation": 1,
            "profile": "",
            "faults": None,
            "fault": None,
            "action": "use",
            "turn": None,
        }
        for i in range(images)
    ]
    table = pa.Table.from_pandas(pd.DataFrame(rows).assign(**changes), index.SCHEMA, preserve_index=False)
    index.write(table, folder / "index.parquet")
    replace(PIXELS, channel_mean=PIXELS.channel_mean + brightness).write(folder / "pixels.npz")
    return Data(folder / "index.parquet", folder / "pixels.npz")


@pytest.fixture
def before(tmp_path: Path) -> Data:
    return make(tmp_path / "before")


def by_quantity(rows: tuple[DriftRow, ...]) -> dict[str, DriftRow]:
    return {row.quantity: row for row in rows}


def test_the_same_images_have_no_drift_whatever_else_their_rows_say(before: Data, tmp_path: Path) -> None:
    assert drift(before, before) == ()
    assert drift(before, make(tmp_path / "again", path="elsewhere.tar", bytes=1)) == ()


def test_more_images_are_counted_by_split(before: Data, tmp_path: Path) -> None:
    rows = by_quantity(drift(before, make(tmp_path / "now", images=48)))
    assert rows["images"] == DriftRow("images", 40, 48, None, "8 new, 0 gone")
    assert [(rows[f"images of {split}"].before, rows[f"images of {split}"].now) for split in ("train", "val")] == [
        (30, 36),
        (10, 12),
    ]
    assert "images of test" not in rows
    assert rows["classes"] == DriftRow("classes", 2, 2, 0.0, "")
    assert not any(row.notable for row in rows.values())


def test_dropped_images_do_not_count(before: Data, tmp_path: Path) -> None:
    now = make(tmp_path / "now", action=["drop"] * 4 + ["repair"] * 36)
    assert by_quantity(drift(before, now))["images"].note == "0 new, 4 gone"


def test_new_and_gone_classes_are_named_and_how_far_their_shares_are_apart(before: Data, tmp_path: Path) -> None:
    now = make(tmp_path / "now", wnid=["n0", "n2", "n0", "n3"] * 10, label=[0, 1, 0, 2] * 10)
    rows = by_quantity(drift(before, now))
    assert rows["classes"] == DriftRow("classes", 2, 3, 0.5, "new: n2, n3; gone: n1")
    assert rows["classes"].notable
    assert (rows["share of class n1"].before, rows["share of class n1"].now) == (0.5, 0.0)
    assert "share of class n0" not in rows


def test_sizes_kinds_and_brightness_are_compared(before: Data, tmp_path: Path) -> None:
    now = make(
        tmp_path / "now",
        images=41,
        brightness=20.0,
        height=150,
        mode=["L"] * 10 + ["RGB"] * 31,
        faults=["grey"] * 10 + [None] * 31,
    )
    rows = by_quantity(drift(before, now))
    assert (rows["shorter side, px"].before, rows["shorter side, px"].now, rows["shorter side, px"].distance) == (200, 150, 1)
    assert rows["aspect, longer over shorter side"].now == pytest.approx(301 / 150)
    assert rows["color mode: share of RGB"].distance == pytest.approx(10 / 41)
    assert rows["fault: share of none"].now == pytest.approx(31 / 41)
    assert (rows["brightness, 0 to 255"].before, rows["brightness, 0 to 255"].now) == (120, 140)
    assert "file format: share of JPEG" not in rows  # all are


def test_the_table_is_markdown_in_columns_and_names_are_no_markup(before: Data, tmp_path: Path) -> None:
    rows = drift(before, make(tmp_path / "now", wnid=["a|b"] * 40, label=0))
    lines = markdown(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert [cell.strip() for cell in lines[2].split("|")[1:4]] == ["images", "40", "40"]
    assert r"new: a\|b; gone: n0, n1" in markdown(rows)
    assert "0.500" not in markdown(rows)
    assert "1.000 (!)" in markdown(rows)


def test_a_file_that_is_no_index_is_named(before: Data) -> None:
    before.index.write_bytes(b"x")
    with pytest.raises(DataError, match=r"index\.parquet: not an index"):
        drift(before, before)
