"""The extract stage: the values at any points of the network, for every image of any split."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from alexnet.errors import DataError, ParamsError
from alexnet.inference.activations import center_activations
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.dataset import ShardDataset
from alexnet.loading.device import to_host
from alexnet.ops.malloc import trim_malloc
from alexnet.shards.manifest import Manifest, Split
from pipelines.config import params
from pipelines.evaluation import inference
from pipelines.features.config import ExtractConfig
from pipelines.features.parts import Parts
from pipelines.runtime import console, environment
from pipelines.storage.dataset import open_dataset

_GROUP_BYTES = 64 << 20  # of a row group, uncompressed: what a reader holds in memory at a time, and what a kill loses


def extract(model_path: Path, manifest_path: Path, path: Path) -> None:
    """Writes a row an image, split after split in the manifest's order; one that was killed goes on where it was.

    A point is a column of fixed-size lists: channel by channel, each row by row.
    """
    config = params.load().extract
    manifest = Manifest.read(manifest_path)
    if missing := [split for split in config.splits if split not in manifest.splits]:
        raise ParamsError(
            f"extract.splits: {manifest.source} has no {missing[0]} images; must be of {', '.join(manifest.splits)}"
        )
    model = inference.open_model(model_path, manifest)
    columns = Columns(model, config)
    parts = Parts(environment.LOCAL / "extract", _identity([*sorted(model_path.iterdir()), manifest_path], config, model))
    images = 0
    for split in config.splits:
        samples = open_dataset(manifest, split)
        _extract_split(model, samples, split, columns, parts)
        images += len(samples)
    trim_malloc()  # joining needs memory of other sizes than the passes did
    parts.join(config.splits, path, columns.schema)
    points = ", ".join(f"{name} ({numbers:,} numbers)" for name, numbers in columns.numbers.items())
    console.say(f"extract: {points} of {images:,} {' and '.join(config.splits)} images as {config.dtype}, in {path}")


class Columns:
    """The columns of features.parquet: split, key, label, name, and points, each with the shape of its values as metadata."""

    def __init__(self, model: Pretrained, config: ExtractConfig) -> None:
        self.config, self._names = config, pa.array([synset.name for synset in model.config.synsets])
        self.dtype = torch.float16 if config.dtype == "float16" else torch.float32
        side = model.config.preprocessing.side_px
        values = center_activations(model, torch.zeros(1, side, side, 3, dtype=torch.uint8), config.points)
        self.numbers = {name: each[0].numel() for name, each in values.items()}
        kind = pa.from_numpy_dtype(config.dtype)
        points = [
            pa.field(name, pa.list_(kind, self.numbers[name]), metadata={"shape": " ".join(map(str, each.shape[1:]))})
            for name, each in values.items()
        ]
        described = [("split", pa.string()), ("key", pa.string()), ("label", pa.int32()), ("name", pa.string())]
        self.schema = pa.schema([*described, *points])

    @property
    def row_bytes(self) -> int:
        """Of the points of an image."""
        return sum(self.numbers.values()) * self.dtype.itemsize

    def table(self, split: Split, keys: list[str], labels: list[int], values: dict[str, np.ndarray]) -> pa.Table:
        """Images as rows. Raises DataError where float16 does not reach."""
        columns = [
            pa.array([split] * len(keys)),
            pa.array(keys),
            pa.array(labels, pa.int32()),
            self._names.take(pa.array(labels)),
        ]
        for name, each in values.items():
            beyond = np.isinf(each).any(1)
            if beyond.any():
                what = f"extract.dtype: {name} of {keys[beyond.argmax()]} is beyond what {each.dtype} holds"
                raise DataError(f"{what}; set extract.dtype: float32")
            columns.append(pa.FixedSizeListArray.from_arrays(pa.array(each.ravel()), each.shape[1]))
        return pa.Table.from_arrays(columns, schema=self.schema)


def _identity(files: list[Path], config: ExtractConfig, model: Pretrained) -> str:
    """What parts depend on: the network, the shards, the configuration, and what rounds differently."""
    how = (config, _GROUP_BYTES, torch.__version__, model.device.type, torch.get_num_threads())
    digest = hashlib.sha256(repr(how).encode())
    for path in files:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:32]


def _extract_split(model: Pretrained, samples: ShardDataset, split: Split, columns: Columns, parts: Parts) -> None:
    """Adds the parts that a split still lacks, each of the same number of batches."""
    size = columns.config.batch_size
    in_part = max(1, _GROUP_BYTES // (size * columns.row_bytes))
    first = min(parts.count(split) * in_part, -(-len(samples) // size))
    if first:
        console.say(f"extract: goes on after {min(first * size, len(samples)):,} of {len(samples):,} {split} images")

    def forward() -> Iterator[tuple[list[str], dict[str, Tensor]]]:
        for batch in inference.load_batches(samples, size, f"extract: {split}", model.device, first):
            values = center_activations(model, batch.images, columns.config.points)
            flat = {name: each.to(columns.dtype).flatten(1) for name, each in values.items()}
            yield inference.sample_keys(samples, batch), flat | {"label": batch.labels}

    # One piece of memory for a part: kept batch by batch, between the large tensors of a pass, they would fragment the heap.
    rows = min(in_part * size, len(samples))
    memory = {name: np.empty((rows, numbers), columns.config.dtype) for name, numbers in columns.numbers.items()}
    keys: list[str] = []
    labels: list[int] = []

    def add_part() -> None:
        parts.add(split, columns.table(split, keys, labels, {name: each[: len(keys)] for name, each in memory.items()}))
        keys.clear()
        labels.clear()

    for batch_keys, values in to_host(forward()):
        for name, each in memory.items():
            each[len(keys) : len(keys) + len(batch_keys)] = values[name].numpy()
        keys += batch_keys
        labels += values["label"].tolist()
        if len(keys) >= rows:
            add_part()
    if keys:
        add_part()


if __name__ == "__main__":
    console.run_on_paths(
        "extract",
        extract,
        model="folder of the trained network",
        manifest="the shards to read",
        features="Parquet to write: split, key, label, name, points",
    )
