"""The extract stage: one layer's output for every image of a split."""

import argparse
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from alexnet.errors import ParamsError
from alexnet.files.atomic import atomic_write
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.dataset import ShardDataset
from alexnet.model.architecture import ModelConfig, table
from alexnet.shards.manifest import Manifest
from pipelines.config import params
from pipelines.evaluation import inference
from pipelines.evaluation.config import ExtractConfig
from pipelines.runtime import console
from pipelines.storage.dataset import open_dataset

_GROUP_BYTES = 64 << 20  # of a row group, uncompressed: what a reader holds in memory at a time


def main() -> None:
    """Reads the arguments and extracts."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.extract", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained network")
    parser.add_argument("--manifest", type=Path, required=True, help="the shards to read")
    parser.add_argument("--features", type=Path, required=True, help="Parquet to write: key, label, and the layer by its name")
    args = parser.parse_args()
    extract(args.model, args.manifest, args.features)


def extract(model_path: Path, manifest_path: Path, path: Path) -> None:
    """Writes the layer's output, image by image in the manifest's order.

    Raises:
        ParamsError: the network has no such layer.
    """
    config = params.load().extract
    manifest = Manifest.read(manifest_path)
    model = inference.open_model(model_path, manifest)
    units = layer_units(model.config.model, config.layer)
    samples = open_dataset(manifest, config.split)
    schema = pa.schema([("key", pa.string()), ("label", pa.int32()), (config.layer, pa.list_(pa.float32(), units))])
    with atomic_write(path) as part, pq.ParquetWriter(part, schema, compression="zstd", use_dictionary=["key"]) as writer:
        group: list[pa.RecordBatch] = []
        for batch in _record_batches(model, config, samples, schema):
            group.append(batch)
            if sum(each.num_rows for each in group) * units * 4 >= _GROUP_BYTES:
                writer.write_table(pa.Table.from_batches(group))
                group = []
        if group:
            writer.write_table(pa.Table.from_batches(group))
    console.say(f"extract: {config.layer} of {len(samples):,} {config.split} images, {units:,} numbers each, in {path}")


def layer_units(config: ModelConfig, layer: str) -> int:
    """How many numbers a layer outputs for an image: a convolution's after pooling, channel by channel, each row by row.

    Raises:
        ParamsError: the network has no such layer.
    """
    rows = {row.name: row for row in table(config)}
    if layer not in rows:
        raise ParamsError(f"extract.layer: this network has no {layer}; it has {', '.join(rows)}")
    return rows[layer].outputs * rows[layer].out_px ** 2


def _record_batches(
    model: Pretrained, config: ExtractConfig, samples: ShardDataset, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Keys, labels and the layer's output of every batch."""
    for batch in inference.load_batches(samples, config.batch_size, f"extract: {config.layer}", model.device):
        numbers = model.features(batch.images, config.layer).numpy()
        flat = pa.FixedSizeListArray.from_arrays(pa.array(numbers.ravel()), numbers.shape[1])
        keys, labels = pa.array(inference.sample_keys(samples, batch)), pa.array(batch.labels.cpu().numpy(), pa.int32())
        yield pa.RecordBatch.from_arrays([keys, labels, flat], schema=schema)


if __name__ == "__main__":
    console.run("extract", main)
