"""Bytes per second from the object store: verified reads of shards beside the clients people use, on a real SeaweedFS.

    python -m benchmarks.store                 # starts a server of its own on loopback
    python -m benchmarks.store --mebibytes 64 --rounds 7

Server and clients share the cores, so the CPU seconds of the client are the sturdier column. What is on the disk is in the
system's page cache, which writes it back later: nobody's rows wait for that. s3fs and the `aws` command are measured where they
are installed (give the command by --aws).
"""

import argparse
import hashlib
import os
import resource
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from botocore.config import Config

from alexnet.errors import DataError
from alexnet.shards.cache import ShardCache
from alexnet.shards.manifest import Shard
from alexnet.shards.tar import Sample, tar_of
from benchmarks import timing
from benchmarks.boto3_client import client_of
from infra.stack import Stack, StoreAccess
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket

_PREFIX = "benchmark/"
_IN_MEMORY = "boto3, unverified, body read in chunks of 1 MiB"
_ON_THE_DISK = "boto3's download_file, unverified, on the disk"
Read = Callable[[Path], object]  # into an empty folder


def make_shards(bucket: Bucket, mebibytes: int, count: int) -> list[Shard]:
    """Shards of noise in samples of 30 kB, in the bucket."""
    draw = np.random.default_rng(1)
    made = []
    for number in range(count):
        samples = [Sample(f"k{i:05}", 0, draw.bytes(30_000)) for i in range(mebibytes * (1 << 20) // 31_744)]
        tar, name = tar_of(samples), f"train-{number:06}.tar"
        bucket.put(_PREFIX + name, tar)
        made.append(Shard(name, len(tar), hashlib.sha256(tar).hexdigest(), len(samples), {0: len(samples)}))
    return made


def readers(bucket: Bucket, access: StoreAccess, shards: list[Shard], aws: str | None) -> dict[str, Read]:
    """What reads all the shards once, one after the other unless it says otherwise."""
    bodies = [bytes(shard.bytes) for shard in shards]
    found: dict[str, Read] = {
        "ours, verified and on the disk": ours(bucket, shards, 1),
        "ours, verified and on the disk, 4 shards at a time": ours(bucket, shards, 4),
        "ours, its digest compared, in memory": lambda _: _compare_digests(bucket, shards),
        "ours, streamed only": lambda _: [sum(map(len, bucket.stream(_PREFIX + shard.name))) for shard in shards],
        _IN_MEMORY: _boto3(access, shards, Config(response_checksum_validation="when_required")),
        _ON_THE_DISK: _downloaded(access, shards, Config(response_checksum_validation="when_required")),
        "boto3 as it comes: the store's checksum compared": _boto3(access, shards, Config()),
        "sha256 alone, of bytes in memory": lambda _: [hashlib.sha256(body).digest() for body in bodies],
    }
    if client := _s3fs(access, shards):
        found["s3fs, whole objects"] = client
    if aws:
        found["pipe: aws s3 cp"] = lambda _: _piped(aws, access, shards)
    return found


def _compare_digests(bucket: Bucket, shards: list[Shard]) -> None:
    """What a read of unknown bytes costs at the least: the stream, and its SHA-256."""
    for shard in shards:
        digest = hashlib.sha256()
        for chunk in bucket.stream(_PREFIX + shard.name):
            digest.update(chunk)
        assert digest.hexdigest() == shard.sha256


def _boto3(access: StoreAccess, shards: list[Shard], config: Config) -> Read:
    client = client_of(access, config)

    def read(_: Path) -> None:
        for shard in shards:
            body = client.get_object(Bucket=access.bucket, Key=_PREFIX + shard.name)["Body"]
            while body.read(1 << 20):
                pass

    return read


def _downloaded(access: StoreAccess, shards: list[Shard], config: Config) -> Read:
    client = client_of(access, config)

    def read(folder: Path) -> None:
        for shard in shards:
            client.download_file(access.bucket, _PREFIX + shard.name, str(folder / shard.name))

    return read


def _s3fs(access: StoreAccess, shards: list[Shard]) -> Read | None:
    try:
        import s3fs
    except ImportError:
        return None
    client = s3fs.S3FileSystem(
        key=access.access_key, secret=access.secret_key, endpoint_url=access.endpoint, use_listings_cache=False
    )
    return lambda _: [client.cat_file(f"{access.bucket}/{_PREFIX}{shard.name}") for shard in shards]


def _piped(aws: str, access: StoreAccess, shards: list[Shard]) -> None:
    """What WebDataset's manual advises: a process for every object, that writes it into a pipe."""
    for shard in shards:
        command = [aws, "s3", "cp", f"s3://{access.bucket}/{_PREFIX}{shard.name}", "-"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | access.environment()) as process:
            assert process.stdout is not None
            while process.stdout.read(1 << 20):
                pass


def ours(bucket: Bucket, shards: list[Shard], at_a_time: int) -> Read:
    """Verified reads into a cache, by so many threads, as the loader fetches ahead."""

    def read(folder: Path) -> None:
        with ThreadPoolExecutor(at_a_time) as threads:
            cache = ShardCache(folder, lambda name, *part: bucket.stream(_PREFIX + name, *part))
            list(threads.map(cache.open, shards))

    return read


def measure(candidates: dict[str, Read], total: int, rounds: int) -> dict[str, dict[str, float]]:
    """Interleaved rounds: MB/s of wall time and CPU seconds a GB of the client and its children."""
    wall: dict[str, list[float]] = {name: [] for name in candidates}
    cpu: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            with tempfile.TemporaryDirectory() as folder:
                start, used = time.perf_counter(), _cpu_seconds()
                candidates[name](Path(folder))
                seconds, busy = time.perf_counter() - start, _cpu_seconds() - used
            if number:  # the first round warms up
                wall[name].append(seconds)
                cpu[name].append(busy)
    return {
        name: {
            "megabytes_per_second": round(total / 1e6 / statistics.median(wall[name])),
            "best": round(total / 1e6 / min(wall[name])),
            "cpu_seconds_per_gigabyte": round(statistics.median(cpu[name]) / total * 1e9, 3),
            "of_unverified_boto3": round(timing.ratio(wall[_IN_MEMORY], wall[name]), 3),
            "of_boto3_on_the_disk": round(timing.ratio(wall[_ON_THE_DISK], wall[name]), 3),
        }
        for name in candidates
    }


def _cpu_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def main() -> None:
    """Measures and writes results/store.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mebibytes", type=int, default=32, help="of a shard")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--aws", default=shutil.which("aws"), help="the aws command")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        stack = Stack(Path(folder))
        access = stack.up()
        try:
            bucket = Bucket(access.bucket, Store(**vars(access)))
            shards = make_shards(bucket, args.mebibytes, args.shards)
            candidates = readers(bucket, access, shards, args.aws)
            rates = measure(candidates, sum(shard.bytes for shard in shards), args.rounds)
        except DataError as error:
            raise SystemExit(f"store: {error}") from error
        finally:
            stack.down()
    result: dict[str, Any] = {
        "object_mebibytes": args.mebibytes,
        "objects": args.shards,
        "store": "SeaweedFS",
        "clients": rates,
    }
    timing.write("store", result)


if __name__ == "__main__":
    main()
