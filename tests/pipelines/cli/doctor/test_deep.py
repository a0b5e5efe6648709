"""What the deep doctor finds by doing it: rights in a real store, the clock, the disk, and the arithmetic of the estimate."""

import json
from pathlib import Path

import pytest
import torch

from alexnet.model.architecture import ModelConfig
from infra.stack import Stack
from pipelines.cli.doctor import basic, deep
from pipelines.config import params
from pipelines.runtime import rates
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.pipelines.cli.doctor.conftest import check_named

ROOT = Path(__file__).parents[4]


@pytest.mark.usefixtures("stage_folder")
def test_rights_are_what_the_store_grants(stack: Stack, fresh_store: Store) -> None:
    free = list(deep.rights())
    assert check_named(free, "data rights").found.startswith(f"s3://{fresh_store.bucket}: write, read, list, remove; writes ")
    assert check_named(free, "clock").state == "ok"
    assert check_named(free, "releases").state == "warning"
    kept = {"Effect": "Deny", "Principal": "*", "Action": ["s3:DeleteObject"]}
    kept["Resource"] = f"arn:aws:s3:::{fresh_store.registry}/*/versions/*"
    stack.admin().put_bucket_policy(
        Bucket=fresh_store.registry, Policy=json.dumps({"Version": "2012-10-17", "Statement": [kept]})
    )
    denied = check_named(list(deep.rights()), "releases")
    assert (denied.state, denied.found) == ("ok", f"s3://{fresh_store.registry} denies their deletion to these credentials")
    assert Bucket(fresh_store.bucket, fresh_store).sizes("") == {}


def test_the_disk_of_the_cache_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_CACHE", str(tmp_path / "cache"))
    (found,) = deep.disk()
    assert f"MB/s written, at {tmp_path / 'cache'}" in found.found
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.usefixtures("stage_folder")
def test_the_estimate_is_images_by_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "is not known before the stage shard has run" in check_named(list(deep.estimate(None)), "estimate").found
    monkeypatch.setattr(rates, "MEASURED", ROOT / "benchmarks" / "results")
    monkeypatch.setattr(deep, "_train_images", lambda counts: 1_281_167)
    rate, where = rates.training_rate(*_run(), on_gpu=False) or (0.0, "")
    assert where.startswith("measured on 2 cores of")
    (found,) = deep.estimate(2.0)
    hours = 1_281_167 * params.load().train.epochs / rate / 3600
    assert float(found.found.split()[1].replace(",", "")) == pytest.approx(hours, abs=0.06)
    assert " at 2 an hour; " in found.found


def _run() -> tuple[ModelConfig, str, int]:
    loaded = params.load()
    return loaded.model, loaded.train.precision, loaded.train.batch_size


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_a_machine_without_a_gpu_says_so() -> None:
    assert [check.found for check in deep.gpus()] == ["no GPU"]


@pytest.mark.gpu
def test_every_gpu_is_tried() -> None:
    checks = list(deep.gpus())
    assert len(checks) == torch.cuda.device_count() + 1
    assert all(check.state == "ok" for check in checks)


@pytest.mark.usefixtures("stage_folder")
def test_only_the_deep_doctor_writes_and_computes() -> None:
    assert {"data rights", "clock", "releases", "disk speed", "gpu speed", "estimate"} <= {
        check.name for check in basic.doctor(deep=True)
    }
