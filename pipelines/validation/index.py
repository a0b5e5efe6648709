"""The index of a source: a row for every image, with its split, its form, its faults and what is done about them."""

import hashlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from alexnet.errors import DataError
from alexnet.files.strict import read_bytes, shown
from alexnet.images.container import MOST_FRAMES
from alexnet.images.inspect import DECODE_FAULTS, FAULTS, Fault, ImageReport, ValidateConfig, inspect_image
from alexnet.shards.manifest import Split
from pipelines.runtime.executor import map_unordered, raise_if_cancelled
from pipelines.sources.archives.tar_stream import LARGEST
from pipelines.sources.base import Partition, SourceImage
from pipelines.sources.open import Source
from pipelines.validation.scan_cache import ScanCache

SCANNED = pa.schema(  # what is found of an image without the others
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
        ("frames", pa.int32()),  # pictures in the file
        ("orientation", pa.int32()),  # EXIF's or XMP's, 1 to 8; 1 without one
        ("profile", pa.string()),  # the name of its ICC profile, empty without one
        ("faults", pa.string()),  # all that were found, also ignored ones, joined by commas, the worst first; null: none
    ]
)
SCHEMA = pa.schema(
    [
        *SCANNED,
        ("fault", pa.string()),  # of the strictest policy; null: none
        ("action", pa.string()),  # use, repair, drop, stop
        ("turn", pa.int32()),  # the orientation that shards apply; null: none, by validate.orientation
    ]
)

_MAX_BYTES = 1 << 32  # of an index, also unpacked; ImageNet's has 150 MB
_ADDED = ("frames", "orientation", "profile", "turn")  # columns that an index of an older release lacks
_MAY_BE_NULL = {*_ADDED, "faults", "fault"}
_KINDS = "|".join(FAULTS)
_PATTERNS = {
    "key": r"[^./\\\s]{1,96}",
    "split": "train|val|test",
    "wnid": r"(?s).*",
    "path": r"(?s)[^/\x00][^\x00]*",
    "sha256": "[0-9a-f]{64}",
    "mode": r"[A-Za-z0-9;]*",
    "format": r"[A-Z0-9]*",
    "faults": f"(?:{_KINDS})(?:,(?:{_KINDS}))*",
    "fault": _KINDS,
    "action": "use|repair|drop|stop",
}
_RANGES = {
    "label": (-1, 1 << 20),
    "offset": (0, 1 << 50),
    "bytes": (0, LARGEST),
    "width": (0, 1 << 31),
    "height": (0, 1 << 31),
    "frames": (1, MOST_FRAMES),
    "orientation": (1, 8),
    "turn": (1, 8),
}


def scan(source: Source, config: ValidateConfig, cache: ScanCache | None = None) -> Iterator[pa.RecordBatch]:
    """Reads and decodes every image once. The rows come in any order, without the faults that only show between images.

    cache: holds the rows of partitions that an earlier run has scanned, which are not read again.
    """
    labels = {wnid: label for label, wnid in enumerate(sorted(source.class_names()))}
    cached: list[pa.Table] = []

    def not_cached() -> Iterator[Partition]:
        for partition in source.partitions():
            rows = cache.read(partition, SCANNED) if cache else None
            if rows is None:
                yield partition
            else:
                cached.append(rows)

    for partition, rows in map_unordered(partial(_scan_partition, source, labels, config), not_cached()):
        if cache:
            cache.write(partition, rows)
        yield from rows.to_batches()
    for rows in cached:
        yield from rows.to_batches()


def _scan_partition(
    source: Source, labels: dict[str, int], config: ValidateConfig, partition: Partition
) -> tuple[Partition, pa.Table]:
    rows: list[dict[str, object]] = []
    for image, first_read in source.read_images(partition):
        raise_if_cancelled()
        data, report = _inspect(source, config, image, first_read)
        rows.append(vars(image) | vars(report))
        rows[-1] |= {
            "label": labels.get(image.wnid, -1),
            "bytes": image.size,
            "sha256": hashlib.sha256(data).hexdigest(),
            "faults": _join(report.faults if image.wnid in labels else {*report.faults, "unknown_class"}),
        }
    return partition, pa.Table.from_pylist(rows, SCANNED)


def _inspect(source: Source, config: ValidateConfig, image: SourceImage, data: bytes) -> tuple[bytes, ImageReport]:
    """An image's bytes and its report. One that cannot be decoded is read again: the network may have garbled it."""
    name = image.key + image.suffix
    report = inspect_image(data, name, config)
    if report.faults & DECODE_FAULTS:
        again = source.read(image.path, image.offset, image.size)
        if again != data:
            return again, inspect_image(again, name, config)
    return data, report


def _join(faults: Iterable[Fault]) -> str | None:
    return ",".join(sorted(faults, key=FAULTS.index)) or None


def complete(batches: Iterable[pa.RecordBatch], config: ValidateConfig, val_fraction: float) -> pa.Table:
    """The index of scanned rows, sorted by split and key: adds the faults that show between images, and missing splits."""
    table = pa.Table.from_batches(batches, SCANNED).sort_by([(name, "ascending") for name in ("key", "path", "offset")])
    rows = table.select(["key", "split", "label", "sha256", "faults"]).to_pandas()
    _apply_policy(rows, config)
    _mark_copies(rows, config)
    if (missing := rows["split"].isna()).any():
        rows.loc[missing, "split"] = split_by_digest(rows[missing], val_fraction)
    columns = {name: table[name] for name in SCANNED.names}
    for name in ("split", "faults", "fault", "action"):
        columns[name] = pa.array(rows[name], pa.string(), from_pandas=True)
    columns["turn"] = table["orientation"] if config.orientation == "apply" else pa.nulls(len(rows), pa.int32())
    return pa.table(columns, SCHEMA).sort_by([("split", "ascending"), ("key", "ascending")]).combine_chunks()


def _apply_policy(rows: pd.DataFrame, config: ValidateConfig) -> None:
    """Sets the columns `fault`, the worst of each row's, and `action`."""
    worst = {faults: config.worst(set(faults.split(","))) for faults in rows["faults"].dropna().unique()}
    decisive = [worst.get(faults) for faults in rows["faults"].astype(object)]
    rows["fault"] = decisive
    rows["action"] = [config.policy[fault] if fault else "use" for fault in decisive]


def _mark_copies(rows: pd.DataFrame, config: ValidateConfig) -> None:
    """Adds the faults of images that are in the source more than once. Of copies in one split, the first by key is used."""
    readable = rows["action"].isin(["use", "repair"])
    copies = rows[readable & rows["sha256"].duplicated(keep=False)].copy()
    if copies.empty:
        return
    copies["rank"] = copies["split"].map({"val": 1, "test": 2}).fillna(0)  # 0: training, or still to be split
    same = copies.groupby("sha256")
    leaked = same["rank"].transform("nunique") > 1
    if config.policy["leaked"] == "drop":
        leaked &= copies["rank"] < same["rank"].transform("max")  # the test set stays as it is, then the validation set
    marks: dict[Fault, pd.Series] = {
        "conflicting": same["label"].transform("nunique") > 1,
        "leaked": leaked,
        "duplicate": copies.duplicated(["sha256", "split"]),
    }
    for fault, marked in marks.items():
        others = copies.loc[marked, "faults"].fillna("")
        copies.loc[marked, "faults"] = [_join({fault, *faults.split(",")} - {""}) for faults in others]
    _apply_policy(copies, config)
    rows.loc[copies.index, ["faults", "fault", "action"]] = copies[["faults", "fault", "action"]]


def splits_of(table: pa.Table) -> tuple[Split, ...]:
    """The splits of an index: train, val, and test where it has such images."""
    return ("train", "val", "test") if pc.any(pc.equal(table["split"], "test")).as_py() else ("train", "val")


def split_by_digest(rows: pd.DataFrame, val_fraction: float) -> pd.Series:
    """A split for every row: of every label, the images of the smallest digests are the validation split.

    One more image moves few others. Copies of an image are in one split, also where their labels differ: the least label
    decides. Images that are dropped are not counted.
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
    """Writes the index as Parquet, its pages with checksums, and returns the file's SHA-256. Equal tables are equal bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table, size = table.replace_schema_metadata(None), 1 << 17
    pq.write_table(table, path, compression="zstd", row_group_size=size, store_schema=False, write_page_checksum=True)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> pa.Table:
    """The index in a file, checked to the last value. Raises DataError when it is missing, damaged or not an index."""
    again = "run the validate stage again"
    try:
        table = _read(read_bytes(path, _MAX_BYTES))
        wrong = next(_wrong(table), None)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; run the validate stage") from None
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:  # of text that is no UTF-8, among others
        raise DataError(f"{path}: not an index: {' '.join(str(error).split())}; {again}") from None
    if wrong:
        raise DataError(f"{path}: not an index: {wrong}; {again}")
    return table


def _read(data: bytes) -> pa.Table:
    """The table in a Parquet file, in today's columns and types."""
    file = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    unpacked = sum(file.metadata.row_group(number).total_byte_size for number in range(file.metadata.num_row_groups))
    if max(unpacked, file.metadata.num_rows) > _MAX_BYTES:
        raise ValueError(f"it unpacks to {unpacked:,} bytes; at most {_MAX_BYTES:,} are read")
    table = file.read()
    if missing := [name for name in SCHEMA.names if name not in table.schema.names and name not in _ADDED]:
        raise ValueError(f"it has no {', '.join(missing)}")
    for name in _ADDED:
        if name not in table.schema.names:
            table = table.append_column(name, pa.nulls(table.num_rows))
    table = table.select(SCHEMA.names).cast(SCHEMA)
    table.validate(full=True)
    return table


def _wrong(table: pa.Table) -> Iterator[str]:
    """What no index of this code can hold."""
    for name in SCHEMA.names:
        if table[name].null_count and name not in _MAY_BE_NULL:
            yield f"{name} is missing in {table[name].null_count:,} rows"
    for name, pattern in _PATTERNS.items():
        strange = table[name].filter(pc.invert(pc.match_substring_regex(table[name], f"^(?:{pattern})$")))
        if len(strange):
            yield f"{name} is {shown(strange[0].as_py())}"
    for name, (least, most) in _RANGES.items():
        strange = table[name].filter(pc.or_(pc.less(table[name], least), pc.greater(table[name], most)))
        if len(strange):
            yield f"{name} is {strange[0]}, allowed: {least} to {most}"
    if len(pc.unique(table["key"])) != table.num_rows:
        yield "a key stands twice"
    classes = table.filter(pc.greater_equal(table["label"], 0)).group_by(["wnid", "label"]).aggregate([])
    if any(len(pc.unique(classes[name])) != classes.num_rows for name in ("wnid", "label")):
        yield "a class has two labels, or a label two classes"
    if pc.any(pc.and_(pc.less(table["label"], 0), pc.is_in(table["action"], pa.array(["use", "repair"])))).as_py():
        yield "an image of no class is used"


def content_digest(table: pa.Table) -> str:
    """SHA-256 of the split, key, label and digest of every image in the table: what shards are made of, wherever they lie."""
    columns = [table[name].to_pylist() for name in ("split", "key", "label", "sha256")]
    digest = hashlib.sha256()
    for split, key, label, sha256 in zip(*columns, strict=True):
        digest.update(f"{split} {key} {label} {sha256}\n".encode())
    return digest.hexdigest()
