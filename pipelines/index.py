"""The index: one row an image; what it is, which split it is in, what is wrong with it and what is done about it."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ArrowInvalid

from alexnet.errors import DataError
from alexnet.images import KINDS, Kind, ValidateConfig, look
from pipelines.executor import map_unordered
from pipelines.sources import Item, Part, Source

SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("split", pa.string()),
        ("wnid", pa.string()),
        ("label", pa.int32()),
        ("path", pa.string()),  # relative to the source
        ("offset", pa.int64()),  # of the image's first byte in that file
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("mode", pa.string()),
        ("format", pa.string()),
        ("fault", pa.string()),  # the worst by policy; null: none
        ("action", pa.string()),  # use, repair, drop, stop
    ]
)


def scan(source: Source, config: ValidateConfig) -> Iterator[pa.RecordBatch]:
    """Reads and decodes every image once. Rows in any order, without the faults that only show between images."""
    labels = {wnid: label for label, wnid in enumerate(sorted(source.names()))}
    yield from map_unordered(partial(scan_part, source, labels, config), source.parts())


def scan_part(source: Source, labels: dict[str, int], config: ValidateConfig, part: Part) -> pa.RecordBatch:
    """Rows of one piece of the source."""
    return pa.RecordBatch.from_pylist([_row(labels, config, item, data) for item, data in source.walk(part)], SCHEMA)


def _row(labels: dict[str, int], config: ValidateConfig, item: Item, data: bytes) -> dict[str, object]:
    seen = look(data, item.key + item.suffix, config)
    faults: set[Kind] = {*seen.faults} if item.wnid in labels else {*seen.faults, "unknown_class"}
    fault = config.worst(faults)
    return {
        "key": item.key,
        "split": item.split,
        "wnid": item.wnid,
        "label": labels.get(item.wnid, -1),
        "path": item.path,
        "offset": item.offset,
        "bytes": item.bytes,
        "sha256": hashlib.sha256(data).hexdigest(),
        "width": seen.width,
        "height": seen.height,
        "mode": seen.mode,
        "format": seen.format,
        "fault": fault,
        "action": action(fault, config),
    }


def action(fault: Kind | None, config: ValidateConfig) -> str:
    """What is done about an image."""
    return "use" if fault is None else config.policy[fault]


def complete(batches: Iterable[pa.RecordBatch], config: ValidateConfig, val_fraction: float) -> pa.Table:
    """The whole index, by split and key: with the faults that show between images, and with a split for every image."""
    table = pa.Table.from_batches(batches, SCHEMA).sort_by([(name, "ascending") for name in ("key", "path", "offset")])
    rows = table.select(["key", "split", "label", "sha256", "fault", "action"]).to_pandas()
    _mark_copies(rows, config)
    if rows["split"].isna().any():
        rows["split"] = keyed_split(rows, val_fraction)
    for name in ("split", "fault", "action"):
        column = pa.array(rows[name], pa.string(), from_pandas=True)
        table = table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), column)
    return table.sort_by([("split", "ascending"), ("key", "ascending")]).combine_chunks()


def _mark_copies(rows: pd.DataFrame, config: ValidateConfig) -> None:
    """Faults of images that are in the source more than once. Of two copies in one split, the first by key is kept."""
    readable = rows["action"].isin(["use", "repair"])
    copies = rows[readable & rows["sha256"].duplicated(keep=False)]
    if copies.empty:
        return
    same = copies.groupby("sha256")
    conflicting = same["label"].transform("nunique") > 1
    leaked = same["split"].transform("nunique") > 1
    if config.policy["leaked"] == "drop":
        leaked &= copies["split"] == "train"  # the validation set stays as it is
    duplicate = copies.duplicated(["sha256", "split"])
    for at in copies.index[conflicting | leaked | duplicate]:
        marks: dict[Kind, bool] = {"conflicting": conflicting[at], "leaked": leaked[at], "duplicate": duplicate[at]}
        own: Kind | None = rows.at[at, "fault"]
        fault = config.worst({kind for kind in KINDS if marks.get(kind, False) or kind == own})
        rows.at[at, "fault"] = fault
        rows.at[at, "action"] = action(fault, config)


def keyed_split(rows: pd.DataFrame, val_fraction: float) -> pd.Series:
    """A split for every row: in every label, the images of the smallest digests validate, whatever others there are.

    Copies of one image are in one split. An image that is left out counts for nothing.
    """
    used = rows[rows["action"].isin(["use", "repair"])][["label", "sha256"]].drop_duplicates().sort_values(["label", "sha256"])
    ranks = used.groupby("label").cumcount()
    counts = used.groupby("label")["sha256"].transform("size")
    quota = (counts * val_fraction).round().clip(1, np.maximum(counts - 1, 1))
    val = used[ranks < quota]
    is_val = pd.MultiIndex.from_frame(rows[["label", "sha256"]]).isin(pd.MultiIndex.from_frame(val))
    return pd.Series(np.where(is_val, "val", "train"), rows.index)


def write(table: pa.Table, path: Path) -> str:
    """Writes Parquet; returns its SHA-256. Equal tables are equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(None), path, compression="zstd", row_group_size=1 << 17, store_schema=False)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> pa.Table:
    """The index in a file. Raises DataError when it is none."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run the validate stage") from None
    except (ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: not an index: {error}; run the validate stage again") from None
    if missing := [name for name in SCHEMA.names if name not in table.schema.names]:
        raise DataError(f"{path}: has no {', '.join(missing)}; run the validate stage again")
    return table.select(SCHEMA.names).cast(SCHEMA)


def content_digest(table: pa.Table) -> str:
    """SHA-256 of what shards are made of: split, key, label and digest of every image that is used. No paths, no offsets."""
    columns = [table[name].to_pylist() for name in ("split", "key", "label", "sha256")]
    digest = hashlib.sha256()
    for split, key, label, sha256 in zip(*columns, strict=True):
        digest.update(f"{split} {key} {label} {sha256}\n".encode())
    return digest.hexdigest()
