"""Every part of a finished run is lost in turn and made again as docs/operations.md says: equal bytes, no second training."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.stack import Stack
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support.checkout import ROOT, Checkout, make_checkout, stages_run

pytestmark = pytest.mark.slow
PAGE = (ROOT / "docs/operations.md").read_text()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, stack: Stack, store: Store) -> Checkout:
    """A checkout in which all has run, with its outputs in DVC's remote."""
    checkout = make_checkout(tmp_path_factory.mktemp("finished"), stack, store, "restore")
    for command in ("-m infra.repro", "-m infra.remote", "-m dvc push --quiet --run-cache", "-m infra.repair"):
        _run(checkout, f"{sys.executable} {command}")  # the last one keeps a copy of dvc.lock, as the next run does
    return checkout


def _run(checkout: Checkout, command: str) -> str:
    done = subprocess.run(["/bin/sh", "-c", command], cwd=checkout.root, env=checkout.env, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _do(checkout: Checkout, command: str) -> str:
    """Does what the page tells, with this environment's programs."""
    assert f"`{command}`" in PAGE
    return _run(checkout, command.replace(".venv/bin/", f"{Path(sys.executable).parent}/"))


def _cache(checkout: Checkout) -> set[str]:
    return {path.name for path in (checkout.root / ".dvc/cache/files/md5").rglob("*") if path.is_file()}


def _empty(name: str, stack: Stack) -> None:
    """Removes every object of a bucket."""
    pages = stack.admin().get_paginator("list_objects_v2").paginate(Bucket=name)
    keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
    assert keys
    for key in keys:
        stack.admin().delete_object(Bucket=name, Key=key)


def test_outputs(finished: Checkout) -> None:
    before = finished.digests()
    shutil.rmtree(finished.root / "artifacts")
    _do(finished, ".venv/bin/dvc checkout")
    assert finished.digests() == before


@pytest.mark.parametrize("command", [".venv/bin/dvc pull --run-cache", ".venv/bin/dvc commit -f dvc.yaml"])
def test_dvcs_cache(finished: Checkout, command: str) -> None:
    before = _cache(finished)
    shutil.rmtree(finished.root / ".dvc/cache")
    _do(finished, command)
    assert _cache(finished) == before
    assert stages_run(finished.repro().stdout) == ["fetch"]


def test_dvc_lock(finished: Checkout) -> None:
    (finished.root / "dvc.lock").unlink()
    _do(finished, "cp .local/dvc.lock dvc.lock")
    assert stages_run(finished.repro().stdout) == ["fetch"]


def test_the_data_bucket(finished: Checkout, stack: Stack) -> None:
    before = finished.digests()
    _empty(finished.store.bucket, stack)
    _do(finished, ".venv/bin/dvc repro --force --single-item shard")
    _do(finished, ".venv/bin/dvc push --run-cache")
    assert finished.digests() == before
    manifest = json.loads((finished.root / "artifacts/manifest.json").read_text())
    there = Bucket(finished.store.bucket, finished.store).sizes("")
    assert {shard["name"] for split in manifest["splits"].values() for shard in split} <= {Path(key).name for key in there}
    assert any(key.startswith("dvc/") for key in there)


def test_the_registrys_last_release(finished: Checkout, stack: Stack) -> None:
    _empty(finished.store.registry, stack)
    _do(finished, ".venv/bin/dvc repro --force --single-item publish")
    receipt = json.loads((finished.root / "artifacts/receipt.json").read_text())
    registry = Bucket(finished.store.registry, finished.store)
    assert json.loads(registry.get("alexnet/aliases/latest.json"))["version"] == receipt["version"]
    _run(finished, f"{sys.executable} -m pipelines.cli.main releases --verify")


def test_the_workers_machine(finished: Checkout, tmp_path: Path) -> None:
    """Another checkout of the commit, without dvc.lock: what was pushed is all that it has. The source is at the same place."""
    subprocess.run(["git", "clone", "-q", str(finished.root), str(tmp_path / "elsewhere")], check=True)
    other = dataclasses.replace(finished, root=tmp_path / "elsewhere")
    assert not (other.root / "dvc.lock").exists()
    _do(other, "python -m infra.remote")
    made = stages_run(_do(other, ".venv/bin/dvc repro --pull"))
    assert set(made) <= {"fetch", "validate", "publish"}  # validate, since the times of files are of a machine
    ours, theirs = finished.digests(), other.digests()
    del ours["artifacts/receipt.json"], theirs["artifacts/receipt.json"]  # a release made again has a time of its own
    assert theirs == ours
