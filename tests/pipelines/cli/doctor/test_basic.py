"""What the doctor finds: the machine, the source, a bucket that keeps its promises and one that does not."""

import importlib.util
import json
import sysconfig
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from pipelines.cli import main as cli
from pipelines.cli.doctor import basic
from pipelines.cli.doctor.basic import Check
from pipelines.runtime import launch
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.pipelines.cli.doctor.conftest import check_named
from tests.support.stage_folder import PARAMS


@pytest.mark.usefixtures("stage_folder")
def test_a_machine_that_has_everything_passes_every_check(fresh_store: Store) -> None:
    checks = basic.doctor()
    assert {check.name for check in checks} >= {"python", "torch", "cores", "memory", "disk", "training", "params", "source"}
    assert [check for check in checks if check.state == "missing"] == []
    assert check_named(checks, "source").found.startswith("folder: 16 files")
    for name, bucket in (("data bucket", fresh_store.bucket), ("registry", fresh_store.registry)):
        assert check_named(checks, name).found == f"s3://{bucket} is reachable, and enforces conditional writes"
    assert Bucket(fresh_store.registry, fresh_store).sizes("") == {}


@pytest.mark.usefixtures("stage_folder")
def test_what_is_missing_comes_with_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ALEXNET_SOURCE", "nowhere")
    monkeypatch.setenv("ALEXNET_BUCKET", "no-such-bucket")
    assert cli.main(["doctor", "--json"]) == 1
    checks = [Check(**check) for check in json.loads(capsys.readouterr().out)]
    assert "nowhere" in check_named(checks, "source").found
    assert "make up" in check_named(checks, "data bucket").advice
    assert cli.main(["doctor"]) == 1
    assert "missing  source" in capsys.readouterr().out


@pytest.mark.parametrize("source", ["digits", "imagenette"])
def test_a_fresh_machine_lacks_nothing_that_the_first_run_brings(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looking writes nothing and fetches nothing."""
    monkeypatch.chdir(tmp_path)
    text = PARAMS.read_text()
    assert "  name: digits" in text
    Path("params.yaml").write_text(text.replace("  name: digits", f"  name: {source}"))
    before = sorted(tmp_path.rglob("*"))
    checks = basic.doctor()
    assert [check for check in checks if check.state == "missing"] == []
    assert check_named(checks, "source").found == f"{source}: not here yet; the first run downloads or unpacks it"
    assert check_named(checks, "registry").found == "ALEXNET_BUCKET is not set; `make run` starts the local store"
    assert sorted(tmp_path.rglob("*")) == before


def test_a_source_and_a_store_whose_packages_are_missing_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes(PARAMS.read_bytes())
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sysconfig, "get_path", lambda kind: str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path))
    checks = basic.doctor()
    source = check_named(checks, "source")
    assert (source.state, "mlxtend" in source.found) == ("missing", True)
    for name in ("data bucket", "registry"):
        check = check_named(checks, name)
        assert (check.state, "no bucket: ALEXNET_BUCKET is not set" in check.found) == ("missing", True)


@pytest.mark.usefixtures("stage_folder")
def test_a_store_without_conditional_writes_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    put = Bucket.put
    monkeypatch.setattr(Bucket, "put", lambda self, key, body, **conditions: put(self, key, body))
    check = check_named(basic.doctor(), "data bucket")
    assert check.state == "missing"
    assert "the store ignores conditional writes" in check.found
    assert "If-None-Match" in check.found


@pytest.mark.usefixtures("stage_folder")
def test_a_check_that_cannot_be_made_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_WORKERS", "many")
    check = check_named(basic.doctor(), "machine")
    assert check.state == "missing"
    assert "ALEXNET_WORKERS: must be a whole number" in check.found


def test_the_form_of_training_is_reported_with_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(launch, "_peer_access", lambda names: None)
    monkeypatch.setenv("ALEXNET_DEVICES", "cuda:0,cuda:1")
    (check,) = basic._training()
    assert check.found == "process-a-tower: 2 processes, a tower each; they exchange outputs by NCCL; chosen by ALEXNET_DEVICES"
    monkeypatch.setenv("ALEXNET_PROCESSES", "1")
    (check,) = basic._training()
    assert check.found.startswith("two-devices: one process on cuda:0 and cuda:1: a tower on each")
    monkeypatch.setenv("ALEXNET_DEVICES", "cpu")
    (check,) = basic._training()
    assert check.found.startswith("one-device: one process on cpu")
    monkeypatch.setenv("ALEXNET_DEVICES", "cuda:2")
    check = check_named(basic.doctor(), "training")
    assert check.state == "missing"
    assert "names cuda:2, but torch sees cuda:0 to cuda:1" in check.found


@pytest.mark.parametrize(("direct", "state", "way"), [(True, "ok", "direct"), (False, "warning", "through the host")])
def test_two_gpus_and_what_lies_between_them_are_reported(
    monkeypatch: pytest.MonkeyPatch, direct: bool, state: str, way: str
) -> None:
    gpu = SimpleNamespace(name="NVIDIA H100", total_memory=80e9, major=9, minor=0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    monkeypatch.setattr(torch.cuda, "can_device_access_peer", lambda one, other: direct)
    first, second, between = basic._gpus()
    assert (first.name, second.found) == ("gpu 0", "NVIDIA H100, 80 GB, compute 9.0")
    assert (between.state, between.found) == (state, f"GPU 0 to GPU 1: {way}")
