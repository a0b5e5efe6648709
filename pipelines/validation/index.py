"""The index: one row an image; what it is, which split it is in, what is wrong with it and what is done about it."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import ArrowInvalid

from alexnet.errors import DataError
from alexnet.images.inspect import DECODE_FAULTS, FAULTS, Fault, ImageReport, ValidateConfig, inspect_image
from pipelines.runtime.executor import map_unordered, raise_if_cancelled
from pipelines.sources.base import Partition, Source, SourceImage
from pipelines.validation.scan_cache import ScanCache

SEEN = pa.schema(  # what one image shows by itself
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
        ("faults", pa.string()),  # every kind found, whatever the policy: the worst first, with commas between; null: none
    ]
)
SCHEMA = pa.schema(
    [
        *SEEN,
        ("fault", pa.string()),  # the worst by policy; null: none
        ("action", pa.string()),  # use, repair, drop, stop
    ]
)
_ROWS = 2000  # that are Python objects at a time


def scan(source: Source, config: ValidateConfig, cache: ScanCache | None = None) -> Iterator[pa.RecordBatch]:
    """Reads and decodes every image once. Rows in any order, without the faults that only show between images.

    cache: the rows of pieces that an earlier run finished; these are not read again.
    """
    labels = {wnid: label for label, wnid in enumerate(sorted(source.class_names()))}
    earlier: list[pa.Table] = []

    def unread() -> Iterator[Partition]:
        for partition in source.partitions():
            rows = cache.read(partition, SEEN) if cache else None
            if rows is None:
                yield partition
            else:
                earlier.append(rows)

    for partition, rows in map_unordered(partial(_scan_partition, source, labels, config), unread()):
        if cache:
            cache.write(partition, rows)
        yield from rows.to_batches()
    for rows in earlier:
        yield from rows.to_batches()


def _scan_partition(
    source: Source, labels: dict[str, int], config: ValidateConfig, partition: Partition
) -> tuple[Partition, pa.Table]:
    return partition, pa.Table.from_batches(scan_partition(source, labels, config, partition), SEEN)


def scan_partition(
    source: Source, labels: dict[str, int], config: ValidateConfig, partition: Partition
) -> Iterator[pa.RecordBatch]:
    """Rows of one piece of the source."""
    rows = _rows(source, labels, config, partition)
    while some := list(islice(rows, _ROWS)):
        yield pa.RecordBatch.from_pylist(some, SEEN)


def _rows(source: Source, labels: dict[str, int], config: ValidateConfig, partition: Partition) -> Iterator[dict[str, object]]:
    for image, first in source.read_images(partition):
        raise_if_cancelled()
        data, seen = _look_twice(source, config, image, first)
        yield {
            "key": image.key,
            "split": image.split,
            "wnid": image.wnid,
            "label": labels.get(image.wnid, -1),
            "path": image.path,
            "offset": image.offset,
            "bytes": image.size,
            "sha256": hashlib.sha256(data).hexdigest(),
            "width": seen.width,
            "height": seen.height,
            "mode": seen.mode,
            "format": seen.format,
            "faults": _joined(seen.faults if image.wnid in labels else {*seen.faults, "unknown_class"}),
        }


def _look_twice(source: Source, config: ValidateConfig, image: SourceImage, data: bytes) -> tuple[bytes, ImageReport]:
    """What an image is. A link may flip a bit: an image that does not decode as it should is read once more."""
    name = image.key + image.suffix
    seen = inspect_image(data, name, config)
    if seen.faults & DECODE_FAULTS:
        again = source.read(image.path, image.offset, image.size)
        if again != data:
            return again, inspect_image(again, name, config)
    return data, seen


def _joined(kinds: Iterable[Fault]) -> str | None:
    return ",".join(sorted(kinds, key=FAULTS.index)) or None


def action(fault: Fault | None, config: ValidateConfig) -> str:
    """What is done about an image."""
    return "use" if fault is None else config.policy[fault]


def complete(batches: Iterable[pa.RecordBatch], config: ValidateConfig, val_fraction: float) -> pa.Table:
    """The whole index, by split and key: with the faults that show between images, and with a split for every image."""
    table = pa.Table.from_batches(batches, SEEN).sort_by([(name, "ascending") for name in ("key", "path", "offset")])
    rows = table.select(["key", "split", "label", "sha256", "faults"]).to_pandas()
    _judge(rows, config)
    _mark_copies(rows, config)
    if rows["split"].isna().any():
        rows["split"] = keyed_split(rows, val_fraction)
    columns = {name: table[name] for name in SEEN.names}
    for name in ("split", "faults", "fault", "action"):
        columns[name] = pa.array(rows[name], pa.string(), from_pandas=True)
    return pa.table(columns, SCHEMA).sort_by([("split", "ascending"), ("key", "ascending")]).combine_chunks()


def _judge(rows: pd.DataFrame, config: ValidateConfig) -> None:
    """Every row's worst fault, and what is done about it."""
    worst = {faults: config.worst(set(faults.split(","))) for faults in rows["faults"].dropna().unique()}
    found = rows["faults"].astype(object)
    actions = {faults: action(fault, config) for faults, fault in worst.items()}
    rows["fault"] = [worst.get(faults) for faults in found]
    rows["action"] = [actions.get(faults, "use") for faults in found]


def _mark_copies(rows: pd.DataFrame, config: ValidateConfig) -> None:
    """Faults of images that are in the source more than once. Of two copies in one split, the first by key is kept."""
    readable = rows["action"].isin(["use", "repair"])
    copies = rows[readable & rows["sha256"].duplicated(keep=False)].copy()
    if copies.empty:
        return
    same = copies.groupby("sha256")
    leaked = same["split"].transform("nunique") > 1
    if config.policy["leaked"] == "drop":
        leaked &= copies["split"] == "train"  # the validation set stays as it is
    marks: dict[Fault, pd.Series] = {
        "conflicting": same["label"].transform("nunique") > 1,
        "leaked": leaked,
        "duplicate": copies.duplicated(["sha256", "split"]),
    }
    for kind, marked in marks.items():
        some = copies.loc[marked, "faults"].fillna("")
        copies.loc[marked, "faults"] = [_joined({kind, *faults.split(",")} - {""}) for faults in some]
    _judge(copies, config)
    rows.loc[copies.index, ["faults", "fault", "action"]] = copies[["faults", "fault", "action"]]


def keyed_split(rows: pd.DataFrame, val_fraction: float) -> pd.Series:
    """A split for every row: in every label, the images of the smallest digests validate, whatever others there are.

    Copies of one image are in one split, also where their labels differ: the least label decides. An image that is left out
    counts for nothing.
    """
    used = rows[rows["action"].isin(["use", "repair"])][["label", "sha256"]].sort_values(["label", "sha256"])
    used = used.drop_duplicates("sha256")
    ranks = used.groupby("label").cumcount()
    counts = used.groupby("label")["sha256"].transform("size")
    quota = (counts * val_fraction).round().clip(1, np.maximum(counts - 1, 1))
    val = used[ranks < quota]
    is_val = rows["sha256"].isin(val["sha256"])
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
