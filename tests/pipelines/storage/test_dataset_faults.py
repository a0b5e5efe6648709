"""An epoch from a real store through a network that misbehaves: the right bytes, or an error that names the shard."""

import dataclasses
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from alexnet.errors import DataError
from alexnet.loading.dataset import ShardDataset
from alexnet.loading.loader import Loader
from alexnet.loading.sampler import BatchSampler
from alexnet.shards.cache import ShardCache
from pipelines.runtime.environment import Store
from pipelines.runtime.errors import Unreachable
from pipelines.storage import dataset as data
from pipelines.storage.bucket import Bucket
from tests.support import sample_shards
from tests.support.fault_proxy import Fault, FaultProxy, Request
from tests.support.processes import kill_when
from tests.support.sample_shards import CLASSES, SIDE_PX

MADE = sample_shards.make([8, 8, 8])
BYTES = MADE.shards[0].bytes
ORDER = list(range(24))


@pytest.fixture
def far(
    bucket: Bucket,
    fresh_store: Store,
    proxy: FaultProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    no_pauses: None,
) -> Bucket:
    """The bucket with the shards, behind the proxy."""
    for name, body in MADE.tars.items():
        bucket.put(f"shards/test/{name}", body)
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("pipelines.storage.bucket._TIMEOUT_SECONDS", 5.0)  # longer than a loaded machine holds a reply up
    return Bucket(fresh_store.bucket, dataclasses.replace(fresh_store, endpoint=proxy.endpoint))


@pytest.fixture
def impatient(far: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stall is noticed after half a second."""
    monkeypatch.setattr("pipelines.storage.bucket._TIMEOUT_SECONDS", 0.5)


def on_get(fault: Fault, times: int) -> Callable[[Request], Fault | None]:
    """A fault for the first requests of every shard."""
    return lambda request: fault if request.method == "GET" and request.number < times else None


def check_epoch(bucket: Bucket) -> None:
    """An epoch has every sample, once, with its own pixels and label."""
    samples = data.open_dataset(MADE.manifest(), "train", bucket)
    batches = list(Loader(samples, BatchSampler(5, seed=1, shuffle=True), workers=2).epoch(0))
    clean = list(Loader(MADE.dataset(data.cache_folder() / "clean"), BatchSampler(5, seed=1, shuffle=True), workers=0).epoch(0))
    assert sorted(i for batch in batches for i in batch.samples.tolist()) == ORDER
    for mine, theirs in zip(batches, clean, strict=True):
        assert torch.equal(mine.images, theirs.images)
        assert torch.equal(mine.labels, theirs.labels)


@pytest.mark.parametrize(
    ("fault", "times"),
    [
        (Fault(status=500, code="InternalError"), 1),
        (Fault(status=503, code="SlowDown"), 3),
        (Fault(status=429, code="TooManyRequests"), 2),
        (Fault(cut_at=0, how="reset"), 2),
        (Fault(cut_at=1000, how="close"), 3),
        (Fault(cut_at=BYTES - 1, how="close"), 1),
        (Fault(cut_at=9728, how="close"), 1),
        (Fault(cut_at=5000, how="reset"), 3),
        (Fault(flip_at=7000), 1),
        (Fault(flip_at=124), 1),
        (Fault(lose_reply=True), 2),
    ],
)
def test_an_epoch_survives(far: Bucket, proxy: FaultProxy, fault: Fault, times: int) -> None:
    proxy.faults = on_get(fault, times)
    check_epoch(far)
    assert proxy.count("GET") >= (times + 1) * len(MADE.shards)


def test_an_epoch_survives_a_stall_of_every_shard(far: Bucket, proxy: FaultProxy, impatient: None) -> None:
    proxy.faults = on_get(Fault(cut_at=5000, how="stall"), 1)
    check_epoch(far)
    assert proxy.count("GET") >= 2 * len(MADE.shards)


def _open_first(bucket: Bucket, folder: Path) -> None:
    ShardCache(folder, lambda name, *part: bucket.stream(f"shards/test/{name}", *part)).open(MADE.shards[0])


def test_a_fetch_of_a_killed_process_is_resumed(
    far: Bucket, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.storage.bucket._CHUNK", 1024)
    proxy.faults = on_get(Fault(bytes_per_second=20_000), 1)
    victim = multiprocessing.get_context("fork").Process(target=_open_first, args=(far, tmp_path))
    victim.start()
    part, body = tmp_path / f"{MADE.shards[0].sha256}.{BYTES}.part", MADE.tars[MADE.shards[0].name]
    kill_when(victim, lambda: part.exists() and part.stat().st_size >= 3000)
    before, fetched = proxy.count("GET"), ShardCache(tmp_path, lambda name, *part: far.stream(f"shards/test/{name}", *part))
    assert bytes(fetched.open(MADE.shards[0]).bytes) == body
    assert 0 < fetched.fetched_bytes <= BYTES - 3000
    assert proxy.count("GET") - before == 1


def test_a_cut_body_is_resumed_and_not_fetched_again(far: Bucket, proxy: FaultProxy) -> None:
    proxy.faults = on_get(Fault(cut_at=5000), 1)
    check_epoch(far)
    assert proxy.count("GET") == 2 * len(MADE.shards)


@pytest.mark.parametrize("byte", [7000, 124, 700])
def test_a_shard_that_is_damaged_every_time_is_refused_by_name_after_one_more_fetch(
    far: Bucket, proxy: FaultProxy, byte: int
) -> None:
    damaged = "train-000001.tar"
    proxy.faults = lambda request: Fault(flip_at=byte) if request.path.endswith(damaged) else None
    with pytest.raises(DataError, match=r"^train-000001\.tar: sha256 is .*, the manifest says .*, also when fetched again"):
        check_epoch(far)
    assert proxy.count("GET", damaged) == 2
    assert not (data.cache_folder() / f"{MADE.shards[1].sha256}.tar").exists()


def test_a_store_that_is_down_is_unreachable_with_the_shards_name(far: Bucket, proxy: FaultProxy) -> None:
    proxy.faults = on_get(Fault(status=503, code="SlowDown"), 99)
    with pytest.raises(Unreachable, match=r"shards/test/train-00000\d\.tar: .*503|shards/test/train-00000\d\.tar: .*SlowDown"):
        check_epoch(far)


def test_a_store_that_only_stalls_is_an_error_and_no_hang(far: Bucket, proxy: FaultProxy, impatient: None) -> None:
    proxy.faults = on_get(Fault(cut_at=100, how="stall"), 99)
    begin = time.monotonic()
    with pytest.raises(Unreachable, match=r"train-00000\d\.tar: the body broke off"):
        check_epoch(far)
    assert time.monotonic() - begin < 60


def test_a_link_of_a_few_kilobytes_a_second_is_an_error_and_no_hang(
    far: Bucket, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipelines.storage.bucket._CHUNK", 1024)  # these shards are smaller than its chunks
    monkeypatch.setattr("alexnet.shards.cache._PATIENCE_SECONDS", 0.5)
    proxy.faults = on_get(Fault(bytes_per_second=4_000), 99)
    cache = ShardCache(tmp_path, lambda name, *part: far.stream(f"shards/test/{name}", *part))
    samples = ShardDataset(MADE.shards, cache, side_px=SIDE_PX, classes=CLASSES)
    with pytest.raises(DataError, match=r"^train-00000\d\.tar: only [\d,]+ bytes arrived in \d+ s, .*; check the link"):
        list(Loader(samples, BatchSampler(5, seed=1, shuffle=True), workers=2).epoch(0))


def test_training_goes_on_from_the_disk_when_the_store_is_gone(far: Bucket, proxy: FaultProxy) -> None:
    check_epoch(far)
    proxy.faults = on_get(Fault(status=503), 999)
    check_epoch(far)


def test_bytes_fetched_before_a_failure_are_not_fetched_again(far: Bucket, proxy: FaultProxy) -> None:
    last = "train-000002.tar"
    proxy.faults = lambda request: Fault(status=403, code="AccessDenied") if request.path.endswith(last) else None
    samples = data.open_dataset(MADE.manifest(), "train", far)
    with pytest.raises(DataError, match=r"train-000002\.tar"):
        _ = sample_shards.labels(samples)
    proxy.faults = lambda request: None
    check_epoch(far)
    assert proxy.count("GET", "train-000000.tar") == proxy.count("GET", "train-000001.tar") == 1
