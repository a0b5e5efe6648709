"""A synthetic index of any size, without images, with faults in known rows."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from alexnet.images.inspect import Fault
from pipelines.validation import index

CLASSES, VAL_IMAGES, CHUNK = 1000, 50_000, 50_000
SINGLE: dict[Fault, int] = {
    "empty": 2,
    "not_an_image": 3,
    "truncated": 7,
    "bomb": 1,
    "unknown_class": 4,
    "tiny": 15,
    "extreme_aspect": 6,
    "damaged": 30,
    "wrong_format": 1,
    "cmyk": 22,
    "deep": 5,
    "alpha": 8,
    "palette": 9,
    "frames": 4,
    "profile": 11,
    "grey": 900,
    "exif_damaged": 11,
    "exif_rotated": 120,
}
COPIES: dict[Fault, int] = {"duplicate": 5, "leaked": 3, "conflicting": 2}  # pairs


def batches(rows: int) -> Iterator[pa.RecordBatch]:
    """The rows in batches; the last 50,000 are the validation images. Faults begin at row 10."""
    train = rows - VAL_IMAGES
    single = _single_faults()
    same = {copy: first for pairs in _copy_pairs(train).values() for first, copy in pairs}
    for start in range(0, rows, CHUNK):
        numbers = range(start, min(start + CHUNK, rows))
        labels = [n % CLASSES for n in numbers]
        columns = {
            "key": [_key(n, train) for n in numbers],
            "split": ["train" if n < train else "val" for n in numbers],
            "wnid": [f"n{label:08}" for label in labels],
            "label": labels,
            "path": ["ILSVRC2012_img_train.tar" if n < train else "ILSVRC2012_img_val.tar" for n in numbers],
            "offset": np.arange(numbers.start, numbers.stop) * 110_000,
            "bytes": np.full(len(numbers), 109_000),
            "sha256": [hashlib.sha256(same.get(n, n).to_bytes(8)).hexdigest() for n in numbers],
            "width": np.full(len(numbers), 500),
            "height": np.full(len(numbers), 375),
            "mode": ["RGB"] * len(numbers),
            "format": ["JPEG"] * len(numbers),
            "frames": np.full(len(numbers), 1),
            "orientation": np.full(len(numbers), 1),
            "profile": [""] * len(numbers),
            "faults": [single.get(n) for n in numbers],
        }
        yield pa.RecordBatch.from_pydict(columns, index.SCANNED)


def keys_by_fault(rows: int) -> dict[Fault, set[str]]:
    """The keys of the images with each fault."""
    train = rows - VAL_IMAGES
    found: dict[Fault, set[str]] = {kind: set() for kind in (*SINGLE, *COPIES)}
    for number, kind in _single_faults().items():
        found[kind].add(_key(number, train))
    for kind, pairs in _copy_pairs(train).items():
        for first, copy in pairs:
            if kind != "leaked":  # in one split: the first by key is kept, the other is a duplicate
                found["duplicate"].add(_key(copy, train))
            if kind != "duplicate":
                found[kind] |= {_key(first, train), _key(copy, train)}
    return found


def _key(number: int, train: int) -> str:
    return f"n{number % CLASSES:08}_{number}" if number < train else f"ILSVRC2012_val_{number - train + 1:08}"


def _single_faults() -> dict[int, Fault]:
    """Row number to fault."""
    return dict(enumerate((kind for kind, count in SINGLE.items() for _ in range(count)), 10))


def _copy_pairs(train: int) -> dict[Fault, list[tuple[int, int]]]:
    """Pairs of rows with the same bytes, after all faults of single images; only conflicting pairs differ in their label."""
    first = 3 * CLASSES
    return {
        "duplicate": [(first + i, first + i + CLASSES) for i in range(COPIES["duplicate"])],
        "leaked": [(first + 100 + i, train + (100 + i - train) % CLASSES) for i in range(COPIES["leaked"])],
        "conflicting": [(first + 200 + i, first + 300 + i) for i in range(COPIES["conflicting"])],
    }
