"""The extract stage: one layer's output for every image of a split."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alexnet.inference.features import width
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.dataset import ShardDataset
from alexnet.shards.manifest import Manifest
from pipelines.config import params
from pipelines.evaluation import inference
from pipelines.runtime import console
from pipelines.storage.dataset import open_dataset

_GROUP_BYTES = 64 << 20  # of a row group, uncompressed: what a reader must hold at a time


def main() -> None:
    """Reads the arguments and extracts."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.extract", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained network")
    parser.add_argument("--manifest", type=Path, required=True, help="the shards to read")
    parser.add_argument("--features", type=Path, required=True, help="Parquet to write: key, label, and the layer by its name")
    args = parser.parse_args()
    extract(args.model, args.manifest, args.features)


def extract(model_path: Path, manifest_path: Path, path: Path) -> None:
    """Writes the layer's output, image by image in the manifest's order; the file appears whole."""
    config = params.load().extract
    manifest = Manifest.read(manifest_path)
    model = inference.open_model(model_path, manifest)
    units = width(model.config.model, config.layer)
    samples = open_dataset(manifest, config.split)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    schema = pa.schema([("key", pa.string()), ("label", pa.int32()), (config.layer, pa.list_(pa.float32(), units))])
    try:
        with pq.ParquetWriter(part, schema, compression="zstd", use_dictionary=["key"]) as writer:
            for group in _groups(_rows(model, config.layer, samples, config.batch_size, schema), 4 * units):
                writer.write_table(group)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    console.say(f"extract: {config.layer} of {len(samples):,} {config.split} images, {units:,} numbers each, in {path}")


def _rows(model: Pretrained, layer: str, samples: ShardDataset, batch_size: int, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """A batch's keys, labels and numbers."""
    for batch in inference.batches(samples, batch_size, f"extract: {layer}", model.device):
        numbers = model.features(batch.images, layer).numpy()
        flat = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), numbers.shape[1])
        keys, labels = pa.array(inference.keys_of(samples, batch)), pa.array(batch.labels.cpu().numpy(), pa.int32())
        yield pa.RecordBatch.from_arrays([keys, labels, flat], schema=schema)


def _groups(batches: Iterator[pa.RecordBatch], row_bytes: int) -> Iterator[pa.Table]:
    """Batches gathered until they make a row group."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(each.num_rows for each in held) * row_bytes >= _GROUP_BYTES:
            yield pa.Table.from_batches(held)
            held = []
    if held:
        yield pa.Table.from_batches(held)


if __name__ == "__main__":
    console.run("extract", main)
