"""The shard stage: resizes all images, shuffles each split, and writes it to the bucket as tars of equally many images.

A shard is `train-000000.tar` under `shards/FINGERPRINT/` of the data bucket. Its side file `train-000000.json` is written after
it; a shard that has one is not made again. The fingerprint is a digest of everything that determines the bytes.

Sections `seed`, `source` and `shard` of params.yaml determine the bytes; the number of workers does not. It can be killed at
any time: started again, it continues. ALEXNET_WORKERS: threads. ALEXNET_DASK: a Dask scheduler whose workers make the shards.
ALEXNET_BUCKET, AWS_...: the data bucket.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from socket import gethostname
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from alexnet.config import build
from alexnet.errors import DataError, ParamsError
from alexnet.files.atomic import atomic_write
from alexnet.files.strict import loads
from alexnet.images.resize import encode, prepare
from alexnet.images.statistics import PixelStatistics, PixelSums
from alexnet.ops.threads import Prefetcher
from alexnet.randomness.keys import permutation, random_key
from alexnet.shards.manifest import Manifest, Shard, ShardConfig, Split, Synset
from alexnet.shards.tar import Sample, tar_of
from pipelines.config import params
from pipelines.runtime import console, environment
from pipelines.runtime.errors import Denied, Unreachable
from pipelines.runtime.executor import map_unordered, raise_if_cancelled
from pipelines.sources.open import Source, open_source
from pipelines.storage.bucket import Bucket, bucket_at, data_bucket
from pipelines.storage.webdataset import indexes
from pipelines.validation import index

CODE = 1  # the version of the bytes that this stage's code makes of an input; a test holds the digest of a shard
_CODECS = ("cykooz.resizer", "pillow", "simplejpeg")  # another version may make other bytes
_AHEAD, _AHEAD_BYTES = 16, 16 << 20  # images of a shard that are read while another is resized


@dataclass(frozen=True)
class Task:
    """One shard to make: its number within the split, and the rows of the index of its samples, in order."""

    split: Split
    number: int
    rows: pa.Table

    def name(self, kind: Literal["tar", "json", "npz"] = "tar") -> str:
        """Of the tar, of its side file, written when the tar is complete, or of its pixel sums, which training shards have."""
        return f"{self.split}-{self.number:06d}.{kind}"


@dataclass(frozen=True)
class ShardJob:
    """What all shards of a run share, sent to every worker.

    place, codecs: the bucket and the versions of the process that started the run; a worker must have the same.
    """

    source: Source
    prefix: str
    config: ShardConfig
    place: str
    codecs: dict[str, str]


def main(index_path: Path, manifest_path: Path, pixels_path: Path) -> None:
    """Makes the shards of params.yaml that are not finished yet, then the pixel statistics and the manifest."""
    given = params.load()
    bucket = data_bucket()
    bucket.check()
    tasks, job = plan_all(index_path, given, bucket)
    source, prefix, splits = job.source, job.prefix, list(dict.fromkeys(task.split for task in tasks))
    shards, sums = write_shards(tasks, bucket, job)
    _check_sizes(shards, bucket, prefix)
    names = source.class_names()
    manifest = Manifest(
        source=given.source.name,
        prefix=prefix,
        side_px=given.shard.side_px,
        exif_orientation="applied" if any(task.rows["turn"].null_count == 0 for task in tasks) else "ignored",
        synsets=tuple(Synset(label, wnid, names[wnid]) for label, wnid in enumerate(sorted(names))),
        splits={
            split: tuple(shard for task, shard in zip(tasks, shards, strict=True) if task.split == split) for split in splits
        },
    )
    PixelStatistics.from_sums(sums).write(pixels_path)
    with atomic_write(manifest_path) as part:
        manifest.write(part)
        for name, body in {"manifest.json": part.read_bytes(), **indexes(manifest)}.items():
            bucket.put(prefix + name, body, content_type="application/json")
    size = sum(shard.bytes for shard in shards)
    images = sum(shard.samples for shard in shards)
    console.say(f"shard: {images:,} images in {len(shards):,} shards, {size / 1e6:,.1f} MB, at {bucket}/{prefix}")


def plan_all(index_path: Path, given: params.Params, bucket: Bucket) -> tuple[list[Task], ShardJob]:
    """Every shard that these parameters make of the images of an index, and what they share."""
    table = index.read(index_path)
    used = table.filter(pc.is_in(table["action"], pa.array(["use", "repair"])))
    source = open_source(given.source)
    prefix = f"shards/{fingerprint(used, given.shard, given.seed)}/"
    tasks = [task for split in index.splits_of(used) for task in plan(used, split, given.shard, given.seed)]
    return tasks, ShardJob(source, prefix, given.shard, bucket.place, codecs())


def fingerprint(used: pa.Table, config: ShardConfig, seed: int) -> str:
    """A digest of everything that determines the bytes of the shards: images, configuration, seed, code and codecs."""
    images = index.content_digest(used)
    inputs = {"images": images, "shard": asdict(config), "seed": seed, "code": CODE, "codecs": codecs()}
    if pc.any(pc.match_substring(used["faults"], "deep")).as_py():
        inputs["deep"] = 3  # since when bits that the container has and the picture does not use are left out, also of colors
    if pc.any(pc.or_kleene(pc.greater(used["turn"], 1), _is_turned_tiff(used))).as_py():
        inputs["turn"] = used["turn"].to_pylist()
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()[:32]


def _is_turned_tiff(used: pa.Table) -> pa.ChunkedArray:
    """Which images Pillow turns when it decodes them, and this code turns back."""
    return pc.and_(pc.equal(used["format"], "TIFF"), pc.not_equal(used["orientation"], 1))


@cache
def codecs() -> dict[str, str]:
    """Versions of the libraries that decode, resize and encode."""
    return {name: version(name) for name in _CODECS}


def plan(used: pa.Table, split: Split, config: ShardConfig, seed: int) -> list[Task]:
    """The shards of a split: all its images, shuffled by the seed and cut into lengths that differ by at most one.

    Raises:
        ParamsError: there are more shards than images.
    """
    rows = used.filter(pc.equal(used["split"], split))
    name, count = ("train_shards", config.train_shards) if split == "train" else ("val_shards", config.val_shards)
    if count > rows.num_rows:
        raise ParamsError(
            f"shard.{name}: {count} shards for the {rows.num_rows} images of the split {split}; must be at most as many"
        )
    order = permutation(random_key(seed, "shard", split), rows.num_rows)
    edges = [rows.num_rows * number // count for number in range(count + 1)]
    return [Task(split, number, rows.take(pa.array(order[edges[number] : edges[number + 1]]))) for number in range(count)]


def write_shards(tasks: list[Task], bucket: Bucket, job: ShardJob) -> tuple[list[Shard], PixelSums]:
    """All shards, in the tasks' order, and the pixel sums of the training split. Finished shards are not written again."""
    prefix = job.prefix
    sizes = bucket.sizes(prefix)
    wanted = [(task, {prefix + task.name(), prefix + task.name("json")} <= sizes.keys()) for task in tasks]
    if finished := sum(is_there for _, is_there in wanted):
        console.say(f"shard: {finished:,} of {len(tasks):,} shards are there already")
    sums = PixelSums(job.config.side_px)
    shards: dict[str, Shard] = {}
    total = sum(task.rows.num_rows for task in tasks)
    results = map_unordered(partial(write_shard, job), wanted)
    for shard, own in console.track(results, total, "shard", size=lambda result: result[0].samples):
        shards[shard.name] = shard
        if own is not None:
            sums.merge(own)
    return [shards[task.name()] for task in tasks], sums


def _check_sizes(shards: list[Shard], bucket: Bucket, prefix: str) -> None:
    """Raises DataError if a tar was removed or replaced since it was written, as far as sizes tell."""
    sizes = bucket.sizes(prefix)
    for shard in shards:
        key = prefix + shard.name
        if sizes.get(key) != shard.bytes:
            raise DataError(
                f"{bucket}/{key}: has {sizes.get(key, 0):,} bytes, {shard.bytes:,} were written; another program changed it; "
                "run again, finished shards are kept"
            )


def write_shard(job: ShardJob, wanted: tuple[Task, bool]) -> tuple[Shard, PixelSums | None]:
    """Writes one shard to the bucket. One that is there, as is said with the task, stays if it has the digest in its side file.

    The worker opens the bucket by its own environment: no credentials are sent to another machine.

    Raises:
        DataError: the worker has another bucket or other codecs than the process that started the run.
    """
    task, is_there = wanted
    bucket = _open_bucket(job)
    prefix, config = job.prefix, job.config
    if is_there and (finished := _read_finished_shard(bucket, job, task)):
        return finished
    sums = PixelSums(config.side_px) if task.split == "train" else None
    labels: Counter[int] = Counter()
    tar = tar_of(samples(job.source, config, task, sums, labels))
    shard = Shard(
        name=task.name(),
        bytes=len(tar),
        sha256=hashlib.sha256(tar).hexdigest(),
        samples=task.rows.num_rows,
        labels=dict(sorted(labels.items())),
    )
    bucket.put(prefix + task.name(), tar, content_type="application/x-tar")
    side: dict[str, Any] = {"shard": asdict(shard), "sums_sha256": None}
    if sums is not None:
        packed = sums.to_bytes()
        side["sums_sha256"] = hashlib.sha256(packed).hexdigest()
        bucket.put(prefix + task.name("npz"), packed)
    bucket.put_json(prefix + task.name("json"), side)
    return shard, sums


def _open_bucket(job: ShardJob) -> Bucket:
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


def _read_finished_shard(bucket: Bucket, job: ShardJob, task: Task) -> tuple[Shard, PixelSums | None] | None:
    """A shard that an earlier run finished, by its side file; None if it is not the task's, or a digest is another one."""
    try:
        side = loads(bucket.get(job.prefix + task.name("json")))
        shard = build(Shard, side["shard"], task.name("json"))
        labels = dict(Counter(task.rows["label"].to_pylist()))
        if (shard.name, shard.samples, shard.labels) != (task.name(), task.rows.num_rows, labels):
            return None
        if bucket.digest(job.prefix + task.name()) != (shard.sha256, shard.bytes):
            return None
        if task.split != "train":
            return shard, None
        packed = bucket.get(job.prefix + task.name("npz"))
        if hashlib.sha256(packed).hexdigest() != side["sums_sha256"]:
            return None
        return shard, PixelSums.from_bytes(packed, job.config.side_px)
    except (Denied, Unreachable):
        raise
    except (DataError, ParamsError, ValueError, KeyError, TypeError):
        return None


def samples(source: Source, config: ShardConfig, task: Task, sums: PixelSums | None, labels: Counter[int]) -> Iterator[Sample]:
    """The samples of a shard, in order. Each is counted in `labels`, and added to `sums` before it is compressed."""
    rows = task.rows.select(["key", "label", "path", "offset", "bytes", "sha256", "turn"]).to_pylist()
    with Prefetcher(partial(_read_image, source), rows, _AHEAD, _has_room) as images:  # a remote store is slow to answer
        for row, data in zip(rows, images, strict=True):
            raise_if_cancelled()
            pixels = prepare(data, config.side_px, config.filter, row["turn"] or 1)
            if sums is not None:
                sums.add(pixels)
            labels[row["label"]] += 1
            yield Sample(row["key"], row["label"], encode(pixels, config.jpeg_quality))


def _has_room(in_flight: Collection[dict[str, Any]], _: dict[str, Any]) -> bool:
    return len(in_flight) < _AHEAD and sum(row["bytes"] for row in in_flight) <= _AHEAD_BYTES


def _read_image(source: Source, row: dict[str, Any]) -> bytes:
    """The bytes of an image; read a second time if they were garbled on the way."""
    for _ in range(2):
        data = source.read(row["path"], row["offset"], row["bytes"])
        if hashlib.sha256(data).hexdigest() == row["sha256"]:
            return data
    raise DataError(
        f"{row['path']}: not the bytes that were validated ({row['key']}), also when read again; the source changed, "
        "or the network garbled it then; run `dvc repro --force validate`, and then again"
    )


if __name__ == "__main__":
    from pipelines import shard  # noqa: PLW0406 - Dask's workers import functions by their module, which cannot be __main__

    console.run_on_paths(
        "shard",
        shard.main,
        index="Parquet of the validate stage",
        manifest="JSON to write, last: every shard's size, digest and labels",
        pixels="NPZ to write: mean image, channel statistics, eigenvectors",
    )
