"""The local scheduler: a real Prefect server and worker, a deployment that runs, a schedule, a cancellation, a clean stop."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from infra.scheduler import Scheduler

ROOT = Path(__file__).parents[2]
DVC = "stages:\n  publish:\n    cmd: echo working; sleep ${seconds}; echo ok > receipt.txt\n    outs: [receipt.txt]\n"


def test_a_taken_port_is_reported_with_its_variable(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ValueError, match=f"port {port} is taken by another program; set ALEXNET_PREFECT_PORT"):
            Scheduler(tmp_path, port).up()
    assert not (tmp_path / "prefect.toml").exists()


@pytest.fixture(scope="module")
def scheduler(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    """A running scheduler of a checkout with one stage."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "flows", root / "flows", ignore=shutil.ignore_patterns("__pycache__"))
    (root / "flows" / "__init__.py").touch()
    for file in ("prefect.yaml", "pyproject.toml"):
        shutil.copy(ROOT / file, root / file)
    (root / "dvc.yaml").write_text(DVC)
    (root / "params.yaml").write_text("seconds: 1\n")
    (root / ".dvc").mkdir()
    shutil.copy(ROOT / ".dvc/config", root / ".dvc/config")
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    scheduler = Scheduler(root)
    try:
        scheduler.up()
        yield scheduler
    finally:
        scheduler.down()


def _prefect(scheduler: Scheduler, *arguments: str) -> str:
    """Runs `prefect` as a user in the checkout: no variable has the server's URL."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    command = [sys.executable, "-m", "prefect", *arguments]
    return subprocess.run(command, cwd=scheduler.root, env=env, capture_output=True, text=True, check=True).stdout


def _post(scheduler: Scheduler, path: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(f"{scheduler.url}{path}", json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as reply:
        return json.loads(reply.read())


def _runs(scheduler: Scheduler, state: str) -> list[dict[str, Any]]:
    return list(_post(scheduler, "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [state]}}}}))


@pytest.mark.slow
def test_the_readmes_command_runs_the_deployment(scheduler: Scheduler) -> None:
    _prefect(scheduler, "deployment", "run", "train-alexnet", "--watch")
    assert (scheduler.root / "receipt.txt").read_text() == "ok\n"
    (run,) = _runs(scheduler, "COMPLETED")
    logs = _post(scheduler, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert "working" in {line["message"] for line in logs}


@pytest.mark.slow
def test_the_schedule_creates_runs_in_advance(scheduler: Scheduler) -> None:
    """With SQLAlchemy 2.1 the server never creates them, and only its log shows it."""
    deadline = time.monotonic() + 180
    while not (runs := [run for run in _runs(scheduler, "SCHEDULED") if run["auto_scheduled"]]):
        assert time.monotonic() < deadline
        time.sleep(2)
    assert all(time.strptime(run["expected_start_time"][:10], "%Y-%m-%d").tm_wday == 0 for run in runs)


@pytest.mark.slow
def test_a_second_up_changes_nothing_and_the_zombie_automation_exists_once(scheduler: Scheduler) -> None:
    worker = (scheduler.folder / "worker.pid").read_text()
    scheduler.up()
    assert (scheduler.folder / "worker.pid").read_text() == worker
    assert len(_post(scheduler, "/automations/filter", {})) == 1
    pool = json.loads(urllib.request.urlopen(f"{scheduler.url}/work_pools/gpu", timeout=30).read())
    assert pool["concurrency_limit"] == 1


@pytest.mark.slow
def test_a_cancelled_run_leaves_no_stage_running_and_down_leaves_nothing(scheduler: Scheduler) -> None:
    (scheduler.root / "params.yaml").write_text("seconds: 793\n")
    _prefect(scheduler, "deployment", "run", "train-alexnet/train-alexnet")
    _await(lambda: _sleepers("793") != [])
    (run,) = _runs(scheduler, "RUNNING")
    _prefect(scheduler, "flow-run", "cancel", run["id"])
    _await(lambda: _sleepers("793") == [])
    _await(lambda: [one["id"] for one in _runs(scheduler, "CANCELLED")] == [run["id"]])
    _prefect(scheduler, "deployment", "run", "train-alexnet/train-alexnet")
    _await(lambda: _sleepers("793") != [])
    assert scheduler.down()
    _await(lambda: _sleepers("793") == [])
    assert not scheduler.settings.exists()
    assert not scheduler.down()


def _sleepers(seconds: str) -> list[psutil.Process]:
    return [process for process in psutil.process_iter(["cmdline"]) if process.info["cmdline"] == ["sleep", seconds]]


def _await(condition: Any, seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)
