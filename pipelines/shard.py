"""The shard stage: images resized, shuffled over the whole split, and written to the bucket as tars of equal counts.

Under `shards/FINGERPRINT/` of the data bucket: `train-000000.tar`, then `train-000000.json`, which says that the tar is
whole. What has that is not made again. The fingerprint names all that decides about the bytes: a prefix never changes.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alexnet import keys
from alexnet.errors import DataError, ParamsError
from alexnet.pixels import PixelStatistics, PixelSums
from alexnet.prepare import encode, prepare
from alexnet.shards import Manifest, Shard, ShardConfig, Split, Synset
from alexnet.tarfiles import Sample, tar_of
from pipelines import console, index, params, places
from pipelines.bucket import Bucket, Missing, data_bucket
from pipelines.executor import map_ordered
from pipelines.sources import Source, open_source

CODE = 1  # counts up whenever this stage's code would make other bytes of the same input
SPLITS: tuple[Split, ...] = ("train", "val")


@dataclass(frozen=True)
class Task:
    """One shard to make: its place in the split, and its samples' rows in order."""

    split: Split
    number: int
    rows: pa.Table

    @property
    def name(self) -> str:
        """The tar's name under the prefix."""
        return f"{self.split}-{self.number:06d}.tar"

    @property
    def side(self) -> str:
        """The name of the JSON beside it, written after it."""
        return f"{self.split}-{self.number:06d}.json"

    @property
    def sums(self) -> str:
        """The name of its pixel sums; only the training split has them."""
        return f"{self.split}-{self.number:06d}.npz"


def main(index_path: Path, manifest_path: Path, pixels_path: Path) -> None:
    """Makes the shards that params.yaml asks for and are not there yet, then the manifest."""
    given = params.load()
    table = index.read(index_path)
    used = table.filter(pc.is_in(table["action"], pa.array(["use", "repair"])))
    bucket = data_bucket()
    bucket.check()
    source = open_source(given.source)
    prefix = f"shards/{fingerprint(used, given.shard, given.seed)}/"
    tasks = [task for split in SPLITS for task in plan(used, split, given.shard, given.seed)]
    shards, sums = make(tasks, source, bucket, prefix, given.shard)
    names = source.names()
    manifest = Manifest(
        source=given.source.name,
        prefix=prefix,
        side_px=given.shard.side_px,
        synsets=tuple(Synset(label, wnid, names[wnid]) for label, wnid in enumerate(sorted(names))),
        splits={
            split: tuple(shard for task, shard in zip(tasks, shards, strict=True) if task.split == split) for split in SPLITS
        },
    )
    PixelStatistics.of(sums).write(pixels_path)
    part = manifest_path.with_name(f".{manifest_path.name}.part")
    manifest.write(part)
    bucket.put(f"{prefix}manifest.json", part.read_bytes(), content_type="application/json")
    part.replace(manifest_path)
    size = sum(shard.bytes for shard in shards)
    console.say(f"shard: {len(used):,} images in {len(shards):,} shards, {size / 1e6:,.1f} MB, at {bucket}/{prefix}")


def fingerprint(used: pa.Table, config: ShardConfig, seed: int) -> str:
    """A name for the bytes: of the images, the configuration, the order and this code."""
    decides = {"images": index.content_digest(used), "shard": asdict(config), "seed": seed, "code": CODE}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def plan(used: pa.Table, split: Split, config: ShardConfig, seed: int) -> list[Task]:
    """The split's shards: all its images in keyed order, cut into runs whose lengths differ by at most one.

    Raises:
        ParamsError: more shards than images.
    """
    rows = used.filter(pc.equal(used["split"], split))
    count = config.train_shards if split == "train" else config.val_shards
    if count > rows.num_rows:
        raise ParamsError(f"shard.{split}_shards: {count} shards for {rows.num_rows} images; must be at most as many")
    order = keys.permutation(keys.key(seed, "shard", split), rows.num_rows)
    edges = [rows.num_rows * number // count for number in range(count + 1)]
    return [Task(split, number, rows.take(pa.array(order[edges[number] : edges[number + 1]]))) for number in range(count)]


def make(tasks: list[Task], source: Source, bucket: Bucket, prefix: str, config: ShardConfig) -> tuple[list[Shard], PixelSums]:
    """All shards, in the tasks' order, and the sums over the training split's pixels. Whole ones are kept."""
    there = bucket.sizes(prefix)
    wanted = [(task, there.get(prefix + task.name) if prefix + task.side in there else None) for task in tasks]
    if kept := sum(size is not None for _, size in wanted):
        console.say(f"shard: {kept:,} of {len(tasks):,} shards are there already")
    sums = PixelSums(config.side_px)
    shards: list[Shard] = []
    work = partial(make_or_keep, source, prefix, config)

    def images() -> Iterator[None]:
        for shard, own in map_ordered(work, wanted):
            shards.append(shard)
            if own is not None:
                sums.merge(own)
            yield from repeat(None, shard.samples)

    for _ in console.track(images(), sum(task.rows.num_rows for task in tasks), "shard"):
        pass
    return shards, sums


@cache
def _bucket_at(at: places.Store) -> Bucket:
    return Bucket(at.bucket, at)


def make_or_keep(
    source: Source, prefix: str, config: ShardConfig, wanted: tuple[Task, int | None]
) -> tuple[Shard, PixelSums | None]:
    """One shard, made unless it is there: then its tar's size is known.

    A pure function but for the bucket, which is that of whoever runs it: no credentials are sent to another machine.
    """
    task, size = wanted
    bucket = _bucket_at(places.store())
    if size is not None:
        kept = _kept(bucket, prefix, size, task)
        if kept is not None:
            return kept
    sums = PixelSums(config.side_px) if task.split == "train" else None
    labels: Counter[int] = Counter()
    tar = tar_of(_samples(source, config, task, sums, labels))
    shard = Shard(
        name=task.name,
        bytes=len(tar),
        sha256=hashlib.sha256(tar).hexdigest(),
        samples=task.rows.num_rows,
        labels=dict(sorted(labels.items())),
    )
    bucket.put(prefix + task.name, tar, content_type="application/x-tar")
    side: dict[str, Any] = {"shard": asdict(shard), "sums_sha256": None}
    if sums is not None:
        packed = sums.to_bytes()
        side["sums_sha256"] = hashlib.sha256(packed).hexdigest()
        bucket.put(prefix + task.sums, packed)
    bucket.put_json(prefix + task.side, side)
    return shard, sums


def _kept(bucket: Bucket, prefix: str, size: int, task: Task) -> tuple[Shard, PixelSums | None] | None:
    """A shard that an earlier run finished; None if what is there does not fit its side file."""
    try:
        side = json.loads(bucket.get(prefix + task.side))
        shard = Shard(**{**side["shard"], "labels": {int(label): count for label, count in side["shard"]["labels"].items()}})
        if shard.bytes != size or shard.name != task.name or shard.samples != task.rows.num_rows:
            return None
        if task.split != "train":
            return shard, None
        packed = bucket.get(prefix + task.sums)
    except (Missing, ValueError, KeyError, TypeError, AttributeError):
        return None
    return (shard, PixelSums.from_bytes(packed)) if hashlib.sha256(packed).hexdigest() == side["sums_sha256"] else None


def _samples(source: Source, config: ShardConfig, task: Task, sums: PixelSums | None, labels: Counter[int]) -> Iterator[Sample]:
    for row in task.rows.select(["key", "label", "path", "offset", "bytes", "sha256"]).to_pylist():
        data = _verified(source, row)
        pixels = prepare(data, config.side_px, config.filter)
        if sums is not None:
            sums.add(pixels)
        labels[row["label"]] += 1
        yield Sample(row["key"], row["label"], encode(pixels, config.jpeg_quality))


def _verified(source: Source, row: dict[str, Any]) -> bytes:
    """The image's bytes. What the network garbled once is read once more."""
    for _ in range(2):
        data = source.read(row["path"], row["offset"], row["bytes"])
        if hashlib.sha256(data).hexdigest() == row["sha256"]:
            return data
    raise DataError(f"{row['path']}: not the bytes that were validated ({row['key']}); the source changed, run again")


_HELP = """\
Sections `seed`, `source` and `shard` of params.yaml decide about the bytes; workers and machines do not. Kill it at any time:
run again, it goes on. ALEXNET_WORKERS: threads. ALEXNET_DASK: a scheduler whose workers do it instead.
ALEXNET_BUCKET, AWS_...: the data bucket.
"""

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.shard",
        description=__doc__,
        epilog=_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--index", type=Path, required=True, help="Parquet of the validate stage")
    parser.add_argument(
        "--manifest", type=Path, required=True, help="JSON to write, last: every shard's size, digest and labels"
    )
    parser.add_argument("--pixels", type=Path, required=True, help="NPZ to write: mean image, channel statistics, eigenvectors")
    arguments = parser.parse_args()
    console.run("shard", lambda: main(arguments.index, arguments.manifest, arguments.pixels))
