"""A table made of parts: as written, whatever had been made before a kill; parts of another table are not used."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipelines.features.parts import Parts


def table(first: int) -> pa.Table:
    return pa.table({"split": ["val"] * 3, "name": ["a", "b", "c"], "x": pa.array(range(first, first + 3), pa.int32())})


def test_parts_are_joined_in_order_a_row_group_each(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "parts", "one")
    parts.add("val", table(6))
    parts.add("train", table(0))
    (tmp_path / "parts" / "one" / ".train-000001.arrow.1.2.part").write_bytes(b"of a killed process")
    again = Parts(tmp_path / "parts", "one")
    assert (again.count("train"), again.count("val")) == (1, 1)
    again.add("train", table(3))
    again.join(["train", "val"], tmp_path / "x.parquet", table(0).schema)
    file = pq.ParquetFile(tmp_path / "x.parquet")
    assert file.num_row_groups == 3
    assert file.read()["x"].to_pylist() == list(range(9))
    file.close()
    assert not (tmp_path / "parts").exists()


def test_parts_of_another_table_are_removed(tmp_path: Path) -> None:
    Parts(tmp_path / "parts", "one").add("val", table(0))
    assert Parts(tmp_path / "parts", "two").count("val") == 0
    assert Parts(tmp_path / "parts", "one").count("val") == 0
