"""Publishing and pulling a release of a full-width network (244 MB), beside boto3 copying the same files unverified.

    python -m benchmarks.registry              # starts a server of its own on loopback

Ours publishes every file, its manifest last, and pulls into an empty cache with every byte checked and on the disk. boto3's
transfer manager, with its ten threads, copies the files and checks nothing of a release. They take turns.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing
from benchmarks.boto3_client import client_of
from infra.stack import Stack, StoreAccess
from pipelines.registry.client import Client
from pipelines.registry.release import Release
from pipelines.registry.store import Registry
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket

_FILES = {"model.safetensors": 244_000_000, "features.parquet": 20_000_000} | {f"pictures/{i}.png": 60_000 for i in range(40)}


def candidates(root: Path, access: StoreAccess) -> dict[str, Callable[[], object]]:
    """What publishes and what pulls, each time a release that is new: its first bytes differ from those before."""
    client, bucket = client_of(access), Bucket(access.registry, Store(**vars(access)))
    draw = np.random.default_rng(1)
    folder = root / "release"
    for name, size in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(draw.bytes(size))
    registry, pulls = Registry(bucket, "bench"), iter(range(1_000_000))
    newest: list[Release] = []

    def publish() -> None:
        with (folder / "model.safetensors").open("r+b") as file:
            file.write(draw.bytes(16))
        release = Release.from_folder("bench", folder)
        registry.publish(release, folder, None)
        newest[:] = [release]

    def pull() -> None:
        Client(bucket, root / f"cache-{next(pulls)}").pull(f"bench@{newest[0].version}")

    def boto3_up() -> None:
        for name in _FILES:
            client.upload_file(str(folder / name), access.registry, f"peer/{name}")

    def boto3_down() -> None:
        target = root / f"peer-{next(pulls)}"
        for name in _FILES:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            client.download_file(access.registry, f"peer/{name}", str(target / name))

    return {"ours, publish": publish, "boto3, upload": boto3_up, "ours, pull": pull, "boto3, download": boto3_down}


def measure(rounds: int) -> dict[str, Any]:
    """Median seconds, and how many times as fast as boto3."""
    with tempfile.TemporaryDirectory() as name:
        stack = Stack(Path(name))
        access = stack.up()
        try:
            seconds = timing.interleave(candidates(Path(name), access), rounds)
        finally:
            stack.down()
    return {
        "megabytes": round(sum(_FILES.values()) / 1e6),
        "files": len(_FILES),
        "store": "SeaweedFS",
        "seconds": {each: round(statistics.median(times), 2) for each, times in seconds.items()},
        "faster_than_boto3": {
            "publish": round(timing.ratio(seconds["boto3, upload"], seconds["ours, publish"]), 2),
            "pull": round(timing.ratio(seconds["boto3, download"], seconds["ours, pull"]), 2),
        },
    }


def main() -> None:
    """Measures and writes results/registry.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    timing.write("registry", measure(parser.parse_args().rounds))


if __name__ == "__main__":
    main()
