"""The shard stage: images resized, shuffled over the whole split, and written to the bucket as tars of equal counts.

Under `shards/FINGERPRINT/` of the data bucket: `train-000000.tar`, then `train-000000.json`, which says that the tar is
whole. What has that is not made again. The fingerprint names all that decides about the bytes: a prefix never changes.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from itertools import repeat
from pathlib import Path
from socket import gethostname
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from alexnet.errors import DataError, ParamsError
from alexnet.files.atomic import atomic_write
from alexnet.images.resize import encode, prepare
from alexnet.images.statistics import PixelStatistics, PixelSums
from alexnet.ops.threads import Prefetcher
from alexnet.randomness.keys import permutation, random_key
from alexnet.shards.manifest import Manifest, Shard, ShardConfig, Split, Synset
from alexnet.shards.tar import Sample, tar_of
from pipelines.config import params
from pipelines.runtime import console, environment
from pipelines.runtime.errors import Missing
from pipelines.runtime.executor import map_ordered, raise_if_cancelled
from pipelines.sources.base import Source
from pipelines.sources.open import open_source
from pipelines.storage.bucket import Bucket, bucket_at, data_bucket
from pipelines.validation import index

CODE = 1  # counts up whenever this stage's code would make other bytes of the same input; its test has a shard's digest
_CODECS = ("cykooz.resizer", "pillow", "simplejpeg")  # whose other versions may make other bytes
_AHEAD, _AHEAD_BYTES = 16, 16 << 20  # of a shard's images, on their way while another is resized
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


@dataclass(frozen=True)
class Job:
    """What all shards of a run have in common. place, codecs: of whoever started it; who works for it must have the same."""

    source: Source
    prefix: str
    config: ShardConfig
    place: str
    codecs: dict[str, str]


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
    shards, sums = make(tasks, bucket, Job(source, prefix, given.shard, bucket.place, codecs()))
    _check_all_there(shards, bucket, prefix)
    names = source.class_names()
    manifest = Manifest(
        source=given.source.name,
        prefix=prefix,
        side_px=given.shard.side_px,
        synsets=tuple(Synset(label, wnid, names[wnid]) for label, wnid in enumerate(sorted(names))),
        splits={
            split: tuple(shard for task, shard in zip(tasks, shards, strict=True) if task.split == split) for split in SPLITS
        },
    )
    PixelStatistics.from_sums(sums).write(pixels_path)
    with atomic_write(manifest_path) as part:
        manifest.write(part)
        bucket.put(f"{prefix}manifest.json", part.read_bytes(), content_type="application/json")
    size = sum(shard.bytes for shard in shards)
    console.say(f"shard: {len(used):,} images in {len(shards):,} shards, {size / 1e6:,.1f} MB, at {bucket}/{prefix}")


def fingerprint(used: pa.Table, config: ShardConfig, seed: int) -> str:
    """A name for the bytes: of the images, the configuration, the order, this code and the codecs."""
    images = index.content_digest(used)
    decides = {"images": images, "shard": asdict(config), "seed": seed, "code": CODE, "codecs": codecs()}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:32]


def codecs() -> dict[str, str]:
    """The libraries that decode, resize and encode, and their versions."""
    return {name: version(name) for name in _CODECS}


def plan(used: pa.Table, split: Split, config: ShardConfig, seed: int) -> list[Task]:
    """The split's shards: all its images in keyed order, cut into runs whose lengths differ by at most one.

    Raises:
        ParamsError: more shards than images.
    """
    rows = used.filter(pc.equal(used["split"], split))
    count = config.train_shards if split == "train" else config.val_shards
    if count > rows.num_rows:
        raise ParamsError(f"shard.{split}_shards: {count} shards for {rows.num_rows} images; must be at most as many")
    order = permutation(random_key(seed, "shard", split), rows.num_rows)
    edges = [rows.num_rows * number // count for number in range(count + 1)]
    return [Task(split, number, rows.take(pa.array(order[edges[number] : edges[number + 1]]))) for number in range(count)]


def make(tasks: list[Task], bucket: Bucket, job: Job) -> tuple[list[Shard], PixelSums]:
    """All shards, in the tasks' order, and the sums over the training split's pixels. Whole ones are kept."""
    prefix = job.prefix
    there = bucket.sizes(prefix)
    wanted = [(task, there.get(prefix + task.name) if prefix + task.side in there else None) for task in tasks]
    if kept := sum(size is not None for _, size in wanted):
        console.say(f"shard: {kept:,} of {len(tasks):,} shards are there already")
    sums = PixelSums(job.config.side_px)
    shards: list[Shard] = []

    def images() -> Iterator[None]:
        for shard, own in map_ordered(partial(make_or_keep, job), wanted):
            shards.append(shard)
            if own is not None:
                sums.merge(own)
            yield from repeat(None, shard.samples)

    for _ in console.track(images(), sum(task.rows.num_rows for task in tasks), "shard"):
        pass
    return shards, sums


def _check_all_there(shards: list[Shard], bucket: Bucket, prefix: str) -> None:
    """Raises DataError unless every tar is in the bucket with its size: who removes or replaces one meanwhile is found out."""
    there = bucket.sizes(prefix)
    for shard in shards:
        key = prefix + shard.name
        if there.get(key) != shard.bytes:
            raise DataError(
                f"{bucket}/{key}: has {there.get(key, 0):,} bytes, {shard.bytes:,} were written; something else changed it; "
                "run again, what is whole is kept"
            )


def make_or_keep(job: Job, wanted: tuple[Task, int | None]) -> tuple[Shard, PixelSums | None]:
    """One shard, made unless it is there: then its tar's size is known.

    A pure function but for the bucket, which is that of whoever runs it: no credentials are sent to another machine.

    Raises:
        DataError: this is another machine, with another bucket or other codecs.
    """
    task, size = wanted
    bucket = _bucket_of(job)
    prefix, config = job.prefix, job.config
    if size is not None:
        kept = _kept(bucket, prefix, size, task)
        if kept is not None:
            return kept
    sums = PixelSums(config.side_px) if task.split == "train" else None
    labels: Counter[int] = Counter()
    tar = tar_of(samples(job.source, config, task, sums, labels))
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


def _bucket_of(job: Job) -> Bucket:
    at = environment.store()
    bucket = bucket_at(at.bucket, at)
    if bucket.place != job.place:
        raise DataError(
            f"{bucket.place}: the bucket of a worker on {gethostname()}, the run's is {job.place}; "
            "set ALEXNET_BUCKET and AWS_ENDPOINT_URL there as here"
        )
    if (own := codecs()) != job.codecs:
        raise DataError(f"{own}: versions of a worker on {gethostname()}, the run's are {job.codecs}; install the same there")
    return bucket


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


def samples(source: Source, config: ShardConfig, task: Task, sums: PixelSums | None, labels: Counter[int]) -> Iterator[Sample]:
    """A shard's samples in order; they are counted in `labels`, and in `sums` before they are compressed."""
    rows = task.rows.select(["key", "label", "path", "offset", "bytes", "sha256"]).to_pylist()
    with Prefetcher(partial(_verified, source), rows, _AHEAD, _has_room) as images:  # a far store takes long to answer
        for row, data in zip(rows, images, strict=True):
            raise_if_cancelled()
            pixels = prepare(data, config.side_px, config.filter)
            if sums is not None:
                sums.add(pixels)
            labels[row["label"]] += 1
            yield Sample(row["key"], row["label"], encode(pixels, config.jpeg_quality))


def _has_room(in_flight: Collection[dict[str, Any]], _: dict[str, Any]) -> bool:
    return len(in_flight) < _AHEAD and sum(row["bytes"] for row in in_flight) <= _AHEAD_BYTES


def _verified(source: Source, row: dict[str, Any]) -> bytes:
    """The image's bytes. What the network garbled once is read once more."""
    for _ in range(2):
        data = source.read(row["path"], row["offset"], row["bytes"])
        if hashlib.sha256(data).hexdigest() == row["sha256"]:
            return data
    raise DataError(
        f"{row['path']}: not the bytes that were validated ({row['key']}), also when read again; the source changed, "
        "or the network garbled it then; run `dvc repro --force validate`, and then again"
    )


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
