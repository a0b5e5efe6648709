"""A Parquet file made of parts on the disk, so that a program that is killed goes on after the last whole one."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alexnet.files.atomic import atomic_write


class Parts:
    """The row groups of a table that is being made, each in a file of its own.

    Args:
        folder: of the parts; those that were made for another identity are removed.
        identity: says from what the table is made and how: parts of an equal one are used again.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self._root, self._folder = folder, folder / identity
        for other in folder.glob("*"):
            if other != self._folder:
                shutil.rmtree(other)
        self._folder.mkdir(parents=True, exist_ok=True)

    def count(self, name: str) -> int:
        """How many parts of this name there are."""
        return len(list(self._folder.glob(f"{name}-*.arrow")))

    def add(self, name: str, table: pa.Table) -> None:
        """Writes the next part of this name."""
        path = self._folder / f"{name}-{self.count(name):06}.arrow"
        with atomic_write(path) as part, pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)

    def join(self, names: Sequence[str], path: Path, schema: pa.Schema) -> None:
        """Writes the Parquet file, a row group a part, name after name, and removes the parts."""
        with (
            atomic_write(path) as part,
            pq.ParquetWriter(part, schema, compression="zstd", use_dictionary=["split", "name"]) as out,
        ):
            for name in names:
                for each in sorted(self._folder.glob(f"{name}-*.arrow")):
                    with pa.memory_map(str(each)) as source:
                        out.write_table(pa.ipc.open_file(source).read_all(), row_group_size=1 << 30)
        shutil.rmtree(self._root)
