"""`alexnet shards`: the run's shards in the bucket, compared with their digests, and made again where they are damaged."""

import argparse
import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from alexnet.errors import DataError
from alexnet.shards.manifest import Manifest, Shard
from pipelines.cli.output import print_result
from pipelines.runtime.console import escaped, progress
from pipelines.storage import webdataset
from pipelines.storage.bucket import Bucket, data_bucket

_STREAMS = 8  # objects read at a time


@dataclass(frozen=True)
class DamagedObject:
    """An object under the shards' prefix that is missing or not what was written, and whether it was made again."""

    key: str
    fault: str
    mended: bool = False


def run(args: argparse.Namespace) -> int:
    """Says where the shards are; compares and mends them as asked. 1 if something is damaged and was not mended."""
    if args.urls:
        found = webdataset.urls(args.urls, args.manifest)
        print_result(args.json, found, "\n".join(found))
        return 0
    manifest, bucket = Manifest.read(args.manifest), data_bucket()
    shards = [shard for found in manifest.splits.values() for shard in found]
    size = sum(shard.bytes for shard in shards)
    about = f"{len(shards):,} shards, {size / 1e6:,.1f} MB, at {bucket}/{manifest.prefix}"
    tree = {"prefix": f"{bucket}/{manifest.prefix}", "shards": len(shards), "bytes": size, "damaged": None}
    if not (args.verify or args.repair):
        print_result(args.json, tree, about)
        return 0
    damaged = find_damage(manifest, bucket)
    if damaged and args.repair:
        mend(damaged, args.manifest, args.index, bucket)
        left = {each.key for each in find_damage(manifest, bucket)}
        damaged = [dataclasses.replace(each, mended=each.key not in left) for each in damaged]
    for each in damaged:
        print(f"{escaped(each.key)}: {escaped(each.fault)}{', made again' if each.mended else ''}", file=sys.stderr)
    broken = [each for each in damaged if not each.mended]
    advice = "" if args.repair or not broken else "; `alexnet shards --verify --repair` makes them again"
    state = f"{len(broken):,} objects damaged{advice}" if broken else "every digest as written"
    print_result(args.json, tree | {"damaged": [asdict(each) for each in damaged]}, f"{about}: {state}")
    return int(bool(broken))


def find_damage(manifest: Manifest, bucket: Bucket) -> list[DamagedObject]:
    """What is damaged of the shards, of their side files and pixel sums, and of the documents beside them."""
    shards = [(split, shard) for split, found in manifest.splits.items() for shard in found]
    with progress(sum(shard.bytes for _, shard in shards), "shards", "B") as advance, ThreadPoolExecutor(_STREAMS) as pool:
        found = pool.map(lambda each: list(_damage_of(manifest, bucket, each[0], each[1], advance)), shards)
        damaged = [damage for some in found for damage in some]
    for name, body in _documents(manifest).items():
        key = manifest.prefix + name
        if (stored := bucket.read_if_whole(key)) != body:
            damaged.append(DamagedObject(key, "is missing" if stored is None else "is not that of this run"))
    return damaged


def _documents(manifest: Manifest) -> dict[str, bytes]:
    """The objects beside the shards that say what they are, by name."""
    return {"manifest.json": manifest.to_bytes()} | webdataset.indexes(manifest)


def _damage_of(
    manifest: Manifest, bucket: Bucket, split: str, shard: Shard, advance: Callable[[int], None]
) -> Iterator[DamagedObject]:
    key = manifest.prefix + shard.name
    if fault := _tar_fault(bucket, key, shard):
        yield DamagedObject(key, fault)
    advance(shard.bytes)
    stem = key.removesuffix(".tar")
    side, packed = bucket.read_if_whole(f"{stem}.json"), bucket.read_if_whole(f"{stem}.npz") if split == "train" else None
    try:
        tree = json.loads(side or b"")
        sums = tree["sums_sha256"]
        is_whole = tree == {"shard": json.loads(json.dumps(asdict(shard))), "sums_sha256": sums}
    except (ValueError, KeyError, TypeError, RecursionError):
        sums, is_whole = None, False
    if not is_whole:
        yield DamagedObject(f"{stem}.json", "is missing" if side is None else "does not describe the shard")
    elif split == "train" and sums != (hashlib.sha256(packed).hexdigest() if packed is not None else ""):
        yield DamagedObject(f"{stem}.npz", "is missing" if packed is None else "is not what its side file names")


def _tar_fault(bucket: Bucket, key: str, shard: Shard) -> str | None:
    found = bucket.digest(key)
    if found is None:
        return "is missing"
    sha256, size = found
    if size != shard.bytes:
        return f"has {size:,} bytes, the manifest says {shard.bytes:,}"
    return None if sha256 == shard.sha256 else f"sha256 is {sha256}, the manifest says {shard.sha256}"


def mend(damaged: list[DamagedObject], manifest_path: Path, index_path: Path, bucket: Bucket) -> None:
    """Makes damaged shards again from the source, by the shard stage's own functions, and writes the documents beside them.

    Raises:
        DataError: parameters, images or libraries are no longer those that made the shards.
    """
    from pipelines import shard
    from pipelines.config import params

    manifest = Manifest.read(manifest_path)
    documents = {manifest.prefix + name: body for name, body in _documents(manifest).items()}
    keys = {each.key for each in damaged} - documents.keys()
    if keys:
        tasks, job = shard.plan_all(index_path, params.load(), bucket)
        if job.prefix != manifest.prefix:
            raise DataError(
                f"{manifest_path}: its shards are at {manifest.prefix}, and what is here makes others, at {job.prefix}: "
                "parameters, images or libraries changed; go back to what made them, or `make run` for new ones"
            )
        kinds: tuple[Literal["tar", "json", "npz"], ...] = ("tar", "json", "npz")
        again = [task for task in tasks if keys & {job.prefix + task.name(kind) for kind in kinds}]
        for task in again:
            bucket.delete(job.prefix + task.name("json"))  # without it a shard counts as not finished
        shard.write_shards(again, bucket, job)
    for key in documents.keys() & {each.key for each in damaged}:
        bucket.put(key, documents[key], content_type="application/json")
