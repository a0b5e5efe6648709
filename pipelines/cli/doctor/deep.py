"""What only work can show: rights in buckets, the clock, speed of disk, store and GPUs; hours and cost of the chosen run."""

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alexnet.shards.manifest import Manifest
from pipelines.cli.doctor.basic import Check
from pipelines.config import params
from pipelines.runtime import environment, rates
from pipelines.runtime.errors import Denied
from pipelines.storage.bucket import Bucket, data_bucket, registry_bucket
from pipelines.storage.dataset import cache_folder

_BYTES = 64 << 20
_SLOW_DISK = 100e6  # bytes a second: below it, a GPU waits for shards
_SKEW_SECONDS = 60.0  # stores refuse requests that are 15 minutes off
_TIMES = 10


def rights() -> Iterator[Check]:
    """That shards can be written, read, listed and removed, and that releases cannot be removed; how fast, and whose clock."""
    yield from _store()
    bucket, name = registry_bucket(), params.load().publish.name
    try:
        bucket.delete(f"{name}/versions/.doctor/{secrets.token_hex(8)}")  # nothing is there
    except Denied:
        yield Check("releases", f"{bucket} denies their deletion to these credentials")
    else:
        advice = "`python -m infra.stack buckets` with an administrator's credentials, or infra/tofu, denies it"
        yield Check("releases", f"{bucket} lets these credentials delete them", advice, "warning")


def _store() -> Iterator[Check]:
    bucket, key, body = data_bucket(), f".doctor/{secrets.token_hex(8)}", os.urandom(_BYTES)
    began = time.monotonic()
    bucket.put(key, body)
    try:
        wrote, now = time.monotonic(), datetime.now(UTC)
        skew = _skew(bucket, key, now)
        read_from = time.monotonic()
        same = bucket.get(key) == body and key in bucket.sizes(".doctor/")
        read = time.monotonic()
    finally:
        bucket.delete(key)
    speed = f"writes {_BYTES / (wrote - began) / 1e6:,.0f} MB/s, reads {_BYTES / (read - read_from) / 1e6:,.0f} MB/s"
    if same:
        yield Check("data rights", f"{bucket}: write, read, list, remove; {speed}")
    else:
        yield Check("data rights", f"{bucket}: what was written is not what is read", "use another store", "missing")
    found = f"{skew:+.0f} s against the store's"
    advice = "set it by NTP: a store refuses requests that are 15 minutes off"
    yield Check("clock", found) if abs(skew) <= _SKEW_SECONDS else Check("clock", found, advice, "warning")


def _skew(bucket: Bucket, key: str, now: datetime) -> float:
    """Seconds that this clock is ahead of the store's, to a second; `now` is when the object had been written."""
    return (now - bucket.modified(key)).total_seconds()


def disk() -> Iterator[Check]:
    """The speed at which the disk of fetched shards takes bytes for good."""
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    body = os.urandom(_BYTES)
    with tempfile.TemporaryFile(dir=folder) as file:
        began = time.monotonic()
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
        rate = _BYTES / (time.monotonic() - began)
    found = f"{rate / 1e6:,.0f} MB/s written, at {folder}"
    slow = "set ALEXNET_CACHE to a faster disk"
    yield Check("disk speed", found) if rate >= _SLOW_DISK else Check("disk speed", found, slow, "warning")


def gpus() -> Iterator[Check]:
    """A matrix product on every GPU, and a sum over all of them by NCCL."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        yield Check("gpu speed", "no GPU")
        return
    for index in range(count):
        matrix = torch.ones(8192, 8192, dtype=torch.bfloat16, device=f"cuda:{index}")
        seconds = _seconds(lambda on=matrix: on @ on)
        yield Check(f"gpu {index} speed", f"{2 * 8192**3 / seconds / 1e12:,.0f} TFLOP/s in bf16")
    from torch.cuda import nccl

    version = ".".join(map(str, nccl.version()))
    if count == 1:
        yield Check("nccl", f"{version}; one GPU, nothing to exchange")
        return
    parts = [torch.ones(_BYTES // 4, device=f"cuda:{index}") for index in range(count)]
    nccl.all_reduce(parts)
    if any(bool((part != count).any()) for part in parts):
        yield Check("nccl", f"{version}: a sum over {count} GPUs is wrong", "check driver and interconnect", "missing")
        return
    seconds = _seconds(lambda: nccl.all_reduce(parts))
    yield Check("nccl", f"{version}: {count} GPUs sum {_BYTES / seconds / 1e9:,.1f} GB/s")


def _seconds(work: Any) -> float:
    """Seconds that it takes on the GPUs, once they are warm."""
    import torch

    def wait() -> None:
        for index in range(torch.cuda.device_count()):
            torch.cuda.synchronize(index)

    work()
    wait()
    began = time.monotonic()
    for _ in range(_TIMES):
        work()
    wait()
    return (time.monotonic() - began) / _TIMES


def estimate(price: float | None) -> Iterator[Check]:
    """How long the chosen run trains, by the rates of benchmarks/results, and what it costs at a price an hour."""
    config = params.load()
    images = _train_images(config.validate.counts)
    if images is None:
        yield Check("estimate", "the number of training images is not known before the stage shard has run", "", "warning")
        return
    on_gpu = environment.devices()[0] != "cpu"
    found = rates.training_rate(config.model, config.train.precision, config.train.batch_size, on_gpu=on_gpu)
    if found is None:
        yield Check("estimate", f"no measured rates in {rates.MEASURED}", "run from a checkout, or `make bench`", "warning")
        return
    rate, where = found
    hours = images * config.train.epochs / rate / 3600
    cost = "" if price is None else f", {hours * price:,.2f} at {price:g} an hour"
    shown = f"{hours:,.1f} h" if hours >= 1 else f"{60 * hours:,.1f} min"
    total = f"{config.train.epochs} epochs x {images:,} images / {rate:,.0f} images/s"
    yield Check("estimate", f"training: {shown}{cost}; {total}, {where}")


def _train_images(counts: Any) -> int | None:
    path = Path("artifacts/manifest.json")
    if path.exists():
        return sum(shard.samples for shard in Manifest.read(path).splits["train"])
    return getattr(counts, "train_images", None)
