"""Rows of an index without images: as many as wanted, with faults planted at known places."""

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from alexnet.images import Kind, ValidateConfig
from pipelines import index

CLASSES, VAL_IMAGES, CHUNK = 1000, 50_000, 50_000
ALONE: dict[Kind, int] = {"truncated": 7, "empty": 2, "cmyk": 22, "wrong_format": 1, "grey": 900, "exif_rotated": 120}
COPIES: dict[Kind, int] = {"duplicate": 5, "leaked": 3, "conflicting": 2}  # pairs
PLANTED: dict[Kind, int] = {**ALONE, "duplicate": 5, "leaked": 6, "conflicting": 4}


def batches(rows: int, config: ValidateConfig) -> Iterator[pa.RecordBatch]:
    """The last 50,000 are the validation images. Rows 10, 11, ... of the training images have the faults."""
    train = rows - VAL_IMAGES
    alone = [kind for kind, count in ALONE.items() for _ in range(count)]
    same = _copies(train)
    for start in range(0, rows, CHUNK):
        numbers = range(start, min(start + CHUNK, rows))
        faults = [alone[n - 10] if 10 <= n < 10 + len(alone) else None for n in numbers]
        labels = [n % CLASSES for n in numbers]
        yield pa.RecordBatch.from_pydict(
            {
                "key": [f"n{n % CLASSES:08}_{n}" if n < train else f"ILSVRC2012_val_{n - train + 1:08}" for n in numbers],
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
                "fault": faults,
                "action": [index.action(fault, config) for fault in faults],
            },
            index.SCHEMA,
        )


def _copies(train: int) -> dict[int, int]:
    """Row -> the row whose bytes it has, far behind the faults that stand alone."""
    first = 20_000
    pairs = {first + i * CLASSES: first + i * CLASSES + 5 * CLASSES for i in range(COPIES["duplicate"])}
    pairs |= {first + 100 + i: train + 100 + i + (first - train) % CLASSES for i in range(COPIES["leaked"])}
    return pairs | {first + 200 + i: first + 300 + i for i in range(COPIES["conflicting"])}
