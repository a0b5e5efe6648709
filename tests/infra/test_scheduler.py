"""The local scheduler: a real Prefect server and worker, a deployment that runs, a schedule, a cancellation, a clean stop."""

import json
import os
import shutil
import signal
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

from infra import prefect_api
from infra.daemon import DaemonError
from infra.prefect_api import Api
from infra.scheduler import Scheduler
from tests.support import sinks

ROOT = Path(__file__).parents[2]
DVC = "stages:\n  publish:\n    cmd: echo working; sleep ${seconds} && echo ok > receipt.txt\n    outs: [receipt.txt]\n"


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


def _call(scheduler: Scheduler, method: str, path: str, body: Any = None) -> Any:
    return Api(scheduler.url).call(method, path, body)


def _schedules(scheduler: Scheduler) -> dict[str, bool]:
    """Whether each schedule of the deployment is active, by its cron line."""
    deployment = _call(scheduler, "GET", "/deployments/name/retrain-alexnet/retrain-alexnet")
    return {one["schedule"]["cron"]: one["active"] for one in deployment["schedules"]}


def _start(scheduler: Scheduler, seconds: str) -> tuple[dict[str, Any], psutil.Process]:
    """A run that sleeps for so long, and the process that sleeps."""
    (scheduler.root / "params.yaml").write_text(f"seconds: {seconds}\n")
    deployment = _call(scheduler, "GET", "/deployments/name/train-alexnet/train-alexnet")
    run = _call(scheduler, "POST", f"/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
    _await(lambda: _sleepers(scheduler, seconds) != [])
    return run, _sleepers(scheduler, seconds)[0]


def _state(scheduler: Scheduler, run: dict[str, Any]) -> str:
    return str(_call(scheduler, "GET", f"/flow_runs/{run['id']}")["state"]["name"])


def _flow_of(stage: psutil.Process) -> psutil.Process:
    return next(process for process in stage.parents() if "prefect.engine" in process.cmdline())


def _runs(scheduler: Scheduler, state: str) -> list[dict[str, Any]]:
    return list(_post(scheduler, "/flow_runs/filter", {"flow_runs": {"state": {"type": {"any_": [state]}}}}))


@pytest.mark.slow
def test_the_readmes_command_runs_the_deployment(scheduler: Scheduler) -> None:
    _prefect(scheduler, "deployment", "run", "train-alexnet", "--watch")
    assert (scheduler.root / "receipt.txt").read_text() == "ok\n"
    (run,) = _runs(scheduler, "COMPLETED")
    logs = _post(scheduler, "/logs/filter", {"logs": {"flow_run_id": {"any_": [run["id"]]}}})
    assert "working" in {line["message"] for line in logs}
    assert run["state"]["message"] == "made publish"


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
    assert [one["name"] for one in _post(scheduler, "/automations/filter", {})] == ["alexnet-zombies"]
    pool = json.loads(urllib.request.urlopen(f"{scheduler.url}/work_pools/gpu", timeout=30).read())
    assert pool["concurrency_limit"] == 1


@pytest.mark.slow
def test_a_second_deployment_keeps_what_was_changed_in_the_ui(scheduler: Scheduler) -> None:
    """`prefect deploy` removes all schedules of a deployment where one of them has no slug, and makes its own active."""
    deployment = _call(scheduler, "GET", "/deployments/name/retrain-alexnet/retrain-alexnet")
    (weekly,) = deployment["schedules"]
    own = [{"schedule": {"cron": "0 4 2 * *"}, "active": True}, {"schedule": {"cron": "0 5 2 * *"}, "active": False}]
    _call(scheduler, "POST", f"/deployments/{deployment['id']}/schedules", own)
    _call(scheduler, "PATCH", f"/deployments/{deployment['id']}/schedules/{weekly['id']}", {"active": False})
    _call(scheduler, "PATCH", "/work_pools/gpu", {"concurrency_limit": 2})
    scheduler.up()
    scheduler.up()
    assert _schedules(scheduler) == {"0 3 * * 1": False, "0 4 2 * *": True, "0 5 2 * *": False}
    assert _call(scheduler, "GET", "/work_pools/gpu")["concurrency_limit"] == 2
    _call(scheduler, "PATCH", "/work_pools/gpu", {"concurrency_limit": 1})


@pytest.mark.slow
def test_a_work_pool_for_kubernetes_starts_jobs_of_the_image(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefect_api, "POOL", "cluster")
    monkeypatch.setenv("ALEXNET_BUCKET", "data")
    assert "work pool cluster, one run at a time" in prefect_api.prepare(Api(scheduler.url), scheduler.root, "alexnet-worker:1")
    pool = _call(scheduler, "GET", "/work_pools/cluster")
    defaults = {name: one.get("default") for name, one in pool["base_job_template"]["variables"]["properties"].items()}
    assert (pool["type"], pool["concurrency_limit"], defaults["image"]) == ("kubernetes", 1, "alexnet-worker:1")
    assert defaults["env"]["ALEXNET_BUCKET"] == "data"


@pytest.mark.slow
def test_worker_and_server_are_started_again_and_a_run_survives_both(scheduler: Scheduler) -> None:
    run, stage = _start(scheduler, "60")
    for daemon in (scheduler.worker, scheduler.server):
        before = daemon.pid
        os.kill(before, signal.SIGKILL)
        _await(lambda daemon=daemon, before=before: daemon.pid != before and daemon.is_running())
    _await(scheduler.is_healthy)
    assert stage.is_running() or _state(scheduler, run) == "Completed"
    _await(lambda: _state(scheduler, run) == "Completed")
    assert all(well for well, _ in scheduler.status())


@pytest.mark.slow
def test_a_server_that_died_is_started_again_by_up_which_leaves_the_worker_and_its_run(scheduler: Scheduler) -> None:
    scheduler.supervisor.stop(10, descendants=False)
    assert scheduler.worker.is_running()  # which the supervisor had started
    run, stage = _start(scheduler, "61")
    worker = scheduler.worker.pid
    scheduler.server.stop(10)
    assert [well for well, _ in scheduler.status()] == [False, False]
    scheduler.up()
    assert scheduler.worker.pid == worker
    assert stage.is_running() or _state(scheduler, run) == "Completed"
    _await(lambda: _state(scheduler, run) == "Completed")


@pytest.mark.slow
def test_a_run_whose_flow_and_worker_were_killed_is_crashed_within_a_minute_and_frees_its_slot(scheduler: Scheduler) -> None:
    run, stage = _start(scheduler, "794")
    flow = _flow_of(stage)
    os.kill(scheduler.worker.pid, signal.SIGKILL)
    flow.kill()
    _await(lambda: _state(scheduler, run) == "Crashed", 60)
    assert _sleepers(scheduler, "794") == []  # what the flow had started has ended too
    run, _ = _start(scheduler, "1")
    _await(lambda: _state(scheduler, run) == "Completed")


@pytest.mark.slow
def test_sigterm_to_worker_flow_dvc_and_stage_at_once_leaves_no_run_running(scheduler: Scheduler) -> None:
    run, _ = _start(scheduler, "795")
    worker = psutil.Process(scheduler.worker.pid)
    for process in [worker, *worker.children(recursive=True)]:
        process.terminate()
    _await(lambda: _state(scheduler, run) == "Crashed", 60)
    assert _sleepers(scheduler, "795") == []


@pytest.mark.slow
def test_a_worker_with_another_environment_is_started_again_unless_it_has_a_run(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = _start(scheduler, "40")
    worker = scheduler.worker.pid
    monkeypatch.setenv("ALEXNET_SOURCE", "elsewhere")
    with pytest.raises(
        DaemonError, match=r"^worker: has another ALEXNET_SOURCE, and a run goes on; wait for its end or cancel"
    ):
        scheduler.up()
    assert scheduler.worker.pid == worker
    _await(lambda: _state(scheduler, run) == "Completed")
    scheduler.up()
    assert scheduler.worker.pid != worker
    for daemon in (scheduler.worker, scheduler.supervisor):
        assert psutil.Process(daemon.pid).environ()["ALEXNET_SOURCE"] == "elsewhere"


@pytest.mark.slow
def test_a_failed_run_is_told_to_a_webhook_and_by_mail(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    with sinks.webhook() as (port, posted), sinks.mailbox() as (mail_port, mails):
        mail = f"mailto://127.0.0.1:{mail_port}?from=alexnet@example.org&to=ops@example.org&format=text&mode=insecure"
        for hook in (f"http://127.0.0.1:{port}/old", f"http://127.0.0.1:{port}/hook"):  # the second replaces the first
            monkeypatch.setenv("ALEXNET_NOTIFY_URL", f"{hook} {mail}")
            scheduler.up()
        (scheduler.root / "params.yaml").write_text("seconds: no-number\n")
        deployment = _call(scheduler, "GET", "/deployments/name/train-alexnet/train-alexnet")
        _call(scheduler, "POST", f"/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "SCHEDULED"}})
        _await(lambda: posted != [] and mails != [])
    assert posted[0]["path"] == "/hook"
    assert posted[0]["subject"].startswith("train-alexnet/")
    assert posted[0]["text"].endswith(posted[0]["body"])
    assert "publish: dvc ended with status 255" in posted[0]["body"]
    assert (mails[0]["To"], mails[0]["Subject"]) == ("ops@example.org", posted[0]["subject"])
    assert "publish: dvc ended with status 255" in mails[0].get_payload(decode=True).decode()  # type: ignore[union-attr]
    for document in _post(scheduler, "/block_documents/filter", {}):
        assert str(port) not in json.dumps(document["data"])  # addresses are secrets


@pytest.mark.slow
def test_a_cancelled_run_leaves_no_stage_running_and_down_leaves_nothing(scheduler: Scheduler) -> None:
    run, _ = _start(scheduler, "793")
    _prefect(scheduler, "flow-run", "cancel", run["id"])
    _await(lambda: _sleepers(scheduler, "793") == [])
    _await(lambda: _state(scheduler, run) == "Cancelled")
    run, _ = _start(scheduler, "793")
    assert scheduler.down()
    assert _sleepers(scheduler, "793") == []
    assert not scheduler.settings.exists()
    assert not scheduler.down()
    assert [well for well, _ in scheduler.status()] == [False, False]
    scheduler.up()
    assert _state(scheduler, run) == "Crashed"


@pytest.mark.slow
def test_a_lost_database_begins_anew_with_pool_and_deployments_and_a_copy_of_it_brings_the_runs_back(
    scheduler: Scheduler, tmp_path: Path
) -> None:
    scheduler.up()
    deployment = _call(scheduler, "GET", "/deployments/name/train-alexnet/train-alexnet")
    run = _call(scheduler, "POST", f"/deployments/{deployment['id']}/create_flow_run", {"state": {"type": "COMPLETED"}})
    scheduler.down()
    shutil.move(scheduler.folder, tmp_path / "copy")
    scheduler.up()
    deployments = {one["name"] for one in _post(scheduler, "/deployments/filter", {})}
    assert deployments == {"train-alexnet", "retrain-alexnet", "validate-data", "evaluate-release", "run-claims"}
    assert _call(scheduler, "GET", "/work_pools/gpu")["concurrency_limit"] == 1
    assert run["id"] not in {one["id"] for one in _post(scheduler, "/flow_runs/filter", {})}
    scheduler.down()
    shutil.rmtree(scheduler.folder)
    shutil.move(tmp_path / "copy", scheduler.folder)
    scheduler.up()
    assert run["id"] in {one["id"] for one in _post(scheduler, "/flow_runs/filter", {})}


def _sleepers(scheduler: Scheduler, seconds: str) -> list[psutil.Process]:
    """What sleeps for so long in the checkout, and nowhere else on the machine."""
    found = {"cmdline": ["sleep", seconds], "cwd": str(scheduler.root.resolve())}
    return [process for process in psutil.process_iter(list(found)) if process.info == found]


def _await(condition: Any, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)
