"""A split's samples, from the data bucket's shards through the cache on the local disk.

Shards stay compressed and the cache's files are mapped, so the data set lives in the system's page cache: where it fits in
memory, it is read ahead into it and every epoch is fed from memory, without a second copy and shared by all processes. A larger
set is read from the disk. ImageNet is 27 to 39 GB, less than a raw or decoded copy in memory would take by a factor of 6 to 9.
"""

import os
import resource
from collections.abc import Iterator
from pathlib import Path

from alexnet.loading.dataset import ShardDataset
from alexnet.shards.cache import ShardCache
from alexnet.shards.manifest import Manifest, Split
from pipelines.runtime import console, environment
from pipelines.storage import bucket

_RESIDENT = 0.5  # of the memory that is available: more is left for the page cache's own judgement


def open_dataset(manifest: Manifest, split: Split, store: bucket.Bucket | None = None) -> ShardDataset:
    """The samples of a split of the manifest, from the data bucket (or `store`). Nothing is fetched before it is needed."""
    source = store or bucket.data_bucket()

    def fetch(name: str, start: int, size: int) -> Iterator[bytes]:
        return source.stream(manifest.prefix + name, start, size)

    files = _allow_open_files()
    shards = manifest.splits[split]
    samples = ShardDataset(
        shards,
        ShardCache(
            cache_folder(),
            fetch,
            streams=environment.streams(),
            limit_bytes=cache_bytes(),
            away_seconds=environment.store_seconds(),
        ),
        side_px=manifest.side_px,
        classes=len(manifest.synsets),
        resident=sum(shard.bytes for shard in shards) <= _RESIDENT * _available_bytes(),
    )
    if samples.cache.limit_bytes is None and samples.most_open < len(shards):
        console.say(
            f"data: this process may open {files:,} files: {samples.most_open:,} of the {split} split's {len(shards):,} shards "
            "stay open, the others are opened anew for every sample; raise the hard limit (ulimit -Hn)"
        )
    return samples


def cache_folder() -> Path:
    """ALEXNET_CACHE: where fetched shards are kept, shared by all processes of this machine."""
    return Path(os.environ.get("ALEXNET_CACHE") or environment.SHARED / "cache" / "shards")


def cache_bytes() -> int | None:
    """ALEXNET_CACHE_BYTES: the most that the cache may hold; no limit unless set."""
    return environment.read_number("ALEXNET_CACHE_BYTES", 1, least=1) if os.environ.get("ALEXNET_CACHE_BYTES") else None


def _available_bytes() -> int:
    try:
        for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except FileNotFoundError:
        pass
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _allow_open_files() -> int:
    """Every mapped shard is an open file: raises this process's soft limit to its hard one, and returns that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
