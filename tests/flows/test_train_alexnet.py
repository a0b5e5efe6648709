"""The flow: stages in order, retries of transient failures only, artifacts that cannot fail it, late runs cancelled."""

import datetime as dt
import importlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.stage import RetryableStageError, StageError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def flow() -> Any:
    """The module, imported late: prefect takes seconds."""
    from flows import train_alexnet

    return train_alexnet


def test_only_transient_failures_are_retried(flow: Any) -> None:
    for error, retried in ((RetryableStageError("x"), True), (StageError("x"), False), (RuntimeError("x"), False)):
        assert flow.is_retryable(None, None, SimpleNamespace(data=error)) is retried


def test_the_retry_policy_is_the_tasks_and_nothing_is_cached(flow: Any) -> None:
    assert flow.repro.retries == 3
    assert flow.repro.retry_delay_seconds == [30, 60, 120]
    assert flow.repro.retry_condition_fn is flow.is_retryable
    assert flow.repro.cache_policy.__class__.__name__ == "_None"
    assert flow.train_alexnet.retries == 0
    assert flow.train_alexnet.name == "train-alexnet"


def test_only_a_scheduled_run_can_be_late(flow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    now = dt.datetime(2026, 1, 5, 15, tzinfo=dt.UTC)
    due = dt.datetime(2026, 1, 5, 3, tzinfo=dt.UTC)

    def run(scheduled: bool) -> Any:
        return SimpleNamespace(flow_run=SimpleNamespace(auto_scheduled=scheduled, expected_start_time=due))

    monkeypatch.setattr(flow.FlowRunContext, "get", lambda: run(scheduled=True))
    assert flow.hours_late(now) == 12
    assert flow.hours_late(due - dt.timedelta(hours=1)) == 0
    monkeypatch.setattr(flow.FlowRunContext, "get", lambda: run(scheduled=False))
    assert flow.hours_late(now) == 0
    monkeypatch.setattr(flow.FlowRunContext, "get", lambda: None)
    assert flow.hours_late(now) == 0


def test_a_late_run_is_cancelled_before_its_first_stage(flow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "hours_late", lambda now: 13.25)
    state = flow.train_alexnet.fn(max_lateness_hours=12)
    assert state.is_cancelled()
    assert state.message == "13.2 hours late, more than 12; the next scheduled run will do it"


MAKE_THAT_FAILS = """
import json, pathlib
tries = pathlib.Path("tries")
tries.write_text(tries.read_text() + "x" if tries.exists() else "x")
if len(tries.read_text()) <= {fails}:
    status = pathlib.Path(".local/status/make.json")
    status.parent.mkdir(parents=True, exist_ok=True)
    status.write_text(json.dumps({{"ok": False, "error": "no store", "retryable": {retryable}}}))
    raise SystemExit(1)
print("making", flush=True)
pathlib.Path("made.txt").write_text("made")
"""
# The flow without pauses between tries; then one that fails for good; then one that starts too late.
FLOWS = """
import pathlib, sys
from flows import train_alexnet as flow
flow.repro = flow.repro.with_options(retry_delay_seconds=0, retry_jitter_factor=None)
results = [flow.main([])]
results.append(len(pathlib.Path("tries").read_text()))
pathlib.Path("tries").unlink()
pathlib.Path("make.py").write_text(pathlib.Path("fails_for_good.py").read_text())
results.append(flow.main([]))
results.append(len(pathlib.Path("tries").read_text()))
flow.hours_late = lambda now: 13.0
state = flow.train_alexnet(return_state=True)
print("results", *results, state.type.value, len(pathlib.Path("tries").read_text()))
"""


def test_an_unknown_stage_is_reported_before_a_server_starts(
    pipeline: Path, flow: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert flow.main(["--target", "nope"]) == 1
    assert capsys.readouterr().err == "error: dvc.yaml: has no stage 'nope'; it has make, publish\n"


@pytest.mark.slow
def test_the_flow_runs_with_an_ephemeral_server(pipeline: Path) -> None:
    """A transient failure is retried, a permanent one is not, and a late run is cancelled before its first stage.

    No artifact can be made, because there is no receipt.json: the run completes all the same.
    """
    (pipeline / "make.py").write_text(MAKE_THAT_FAILS.format(fails=2, retryable=True))
    (pipeline / "fails_for_good.py").write_text(MAKE_THAT_FAILS.format(fails=9, retryable=False))
    home = pipeline / ".local" / "prefect"
    home.mkdir(parents=True)
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_LOGGING_LEVEL": "INFO",
        "ALEXNET_LOG": "json",
    }
    done = subprocess.run([sys.executable, "-c", FLOWS], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "results 0 3 1 1 CANCELLED 1", done.stderr[-3000:]
    assert (pipeline / "receipt.txt").read_text() == "ok"
    assert done.stderr.index("making") < done.stderr.index("publishing")
    assert "published nothing" not in done.stderr
    lines = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert {"making", "publishing"} <= {line["message"] for line in lines if line["run"]}
    assert {line["stage"] for line in lines if line["message"] == "publishing"} == {"publish"}
    assert "\nerror: make: no store" in done.stderr


def test_the_deployments_are_what_the_readme_says(flow: Any) -> None:
    import yaml

    file = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    assert file["pull"] == [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $ALEXNET_HOME }}"}}]
    deployments = {one["name"]: one for one in file["deployments"]}
    assert {"train-alexnet", "retrain-alexnet", "validate-data", "evaluate-release"} <= deployments.keys()
    for name, deployment in deployments.items():
        module, _, function = deployment["entrypoint"].rpartition(":")
        found = getattr(importlib.import_module(module.removesuffix(".py").replace("/", ".")), function)
        assert found.name == name
        assert found.retries == 0
        assert deployment["work_pool"]["name"] == "gpu"
        assert "concurrency_limit" not in deployment  # it would kill retries: the pool has the limit
    (weekly,) = deployments["retrain-alexnet"]["schedules"]
    assert weekly["cron"]
    assert weekly["timezone"]
    assert "active" not in weekly  # what was paused in the UI stays paused


def test_every_parameter_has_a_description(flow: Any) -> None:
    """As Prefect's forms show them."""
    from prefect.utilities.callables import parameter_schema

    for each in (flow.train_alexnet, flow.retrain_alexnet, flow.validate_data, flow.evaluate_release):
        schema = parameter_schema(each)
        fields = [*schema.properties.values(), *schema.definitions["RunSettings"]["properties"].values()]
        assert all(field.get("description") for field in fields), each.name
