"""Which queries are drawn, and with what."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.pictures.neighbors import choose, draw_neighbors
from tests.support import sample_shards


def row(sample: int, label: int) -> dict[str, Any]:
    return {
        "label": label, "name": f"class {label}", "sample": sample, "neighbor_labels": [label, 2],
        "neighbor_names": [f"class {label}", "class 2"], "neighbor_samples": [0, 1], "distances": [1.5, 2.25],
    }  # fmt: skip


def test_queries_of_different_classes_come_first() -> None:
    rows = [row(0, 0), row(1, 0), row(2, 1), row(3, 1), row(4, 2)]
    assert [one["sample"] for one in choose(rows)] == [0, 2, 4, 1, 3]
    assert len(choose(rows * 3)) == 6


def test_queries_are_drawn_beside_their_neighbors(tmp_path: Path) -> None:
    samples = sample_shards.make([3]).dataset(tmp_path / "cache")
    pq.write_table(pa.Table.from_pylist([row(0, 0), row(1, 1)]), tmp_path / "neighbors.parquet")
    draw_neighbors(tmp_path / "neighbors", tmp_path / "neighbors.parquet", "test", (samples, samples))
    svg = (tmp_path / "neighbors.svg").read_text()
    assert svg.count("<image") == 6
    assert svg.count("<!-- class 2 -->") == 2
    assert "<!-- 2.25 -->" in svg
    assert "<!-- 50% of the neighbors of 2 test images are of their class" in svg
