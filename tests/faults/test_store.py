"""P4 and P5 at the store: DVC's remote does not hand out what was changed, and a killed upload leaves no object."""

import multiprocessing
import subprocess
import sys
from pathlib import Path

import pytest

from infra import remote
from infra.stack import Stack
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support.fault_proxy import Fault, FaultProxy
from tests.support.processes import kill_when


def _dvc(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True)


@pytest.mark.slow
def test_an_object_of_dvcs_remote_that_was_changed_is_refused(
    tmp_path: Path, stack: Stack, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    assert _dvc("init", "-q").returncode == 0
    remote.configure_local(stack.folder / "places.json")
    Path("model").write_text("weights that nobody else has")
    for command in (("add", "-q", "model"), ("push", "-q")):
        assert _dvc(*command).returncode == 0
    digest = Path("model.dvc").read_text().partition("md5: ")[2].split()[0]
    bucket = Bucket(store.bucket, store)
    key = f"dvc/files/md5/{digest[:2]}/{digest[2:]}"
    whole = bucket.get(key)
    bucket.put(key, bytes([whole[0] ^ 1]) + whole[1:])
    Path("model").unlink()
    subprocess.run(["rm", "-r", ".dvc/cache"], check=True)
    assert _dvc("pull", "-q").returncode != 0
    assert not Path("model").exists()
    bucket.put(key, whole)
    assert _dvc("pull", "-q").returncode == 0
    assert Path("model").read_bytes() == whole


@pytest.mark.slow
def test_an_upload_that_is_killed_leaves_no_object_and_can_be_repeated(
    bucket: Bucket, fresh_store: Store, tmp_path: Path
) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(40 << 20)  # three parts
    proxy = FaultProxy(fresh_store.endpoint or "")
    proxy.faults = lambda request: Fault(status=503, code="SlowDown") if "partNumber=3" in request.query else None
    store = {**vars(fresh_store), "endpoint": proxy.endpoint}
    victim = multiprocessing.get_context("fork").Process(
        target=Bucket(bucket.name, Store(**store)).upload, args=(path, "large")
    )
    victim.start()
    kill_when(victim, lambda: any("partNumber=3" in request.query for request in proxy.seen))
    proxy.close()
    assert bucket.sizes("") == {}
    bucket.upload(path, "large")
    assert bucket.sizes("") == {"large": path.stat().st_size}
