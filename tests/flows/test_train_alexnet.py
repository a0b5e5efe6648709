"""The flow: the stages in order, retries only where they can help, artifacts that cannot fail it, late runs dropped."""

import datetime as dt
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from flows.stage import StageFailed, StagePassing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def flow() -> Any:
    """The module, imported late: prefect takes seconds."""
    from flows import train_alexnet

    return train_alexnet


def test_a_retry_is_for_failures_that_pass(flow: Any) -> None:
    for error, helps in ((StagePassing("x"), True), (StageFailed("x"), False), (RuntimeError("x"), False)):
        assert flow.can_help(None, None, SimpleNamespace(data=error)) is helps


def test_the_policy_is_on_the_task_and_nothing_is_cached(flow: Any) -> None:
    assert flow.repro.retries == 3
    assert flow.repro.retry_delay_seconds == [30, 60, 120]
    assert flow.repro.retry_condition_fn is flow.can_help
    assert flow.repro.cache_policy.__class__.__name__ == "_None"
    assert flow.train_alexnet.retries == 0
    assert flow.train_alexnet.name == "train-alexnet"


def test_a_run_is_late_by_its_schedule_only(flow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_late_run_ends_before_its_first_stage(flow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow, "hours_late", lambda now: 13.25)
    state = flow.train_alexnet.fn(max_lateness_hours=12)
    assert state.is_cancelled()
    assert state.message == "13.2 hours late, more than 12; the next scheduled run will do it"


def test_metrics_are_rows_with_the_baselines_beside_them(flow: Any) -> None:
    metrics = {"center_crop": {"top1_error": 0.1}, "baselines": {"ridge": {"top1_error": 0.3}}, "images": 10}
    assert flow.metric_rows(metrics) == [
        {"protocol": "center crop", "top1_error": 0.1},
        {"protocol": "baseline: ridge", "top1_error": 0.3},
    ]


def test_the_whole_flow_runs_with_a_server_of_its_own(pipeline: Path) -> None:
    """No artifact can be made here, because there are no metrics: the run completes all the same."""
    home = pipeline / ".local" / "prefect"
    home.mkdir(parents=True)
    env = os.environ | {
        "PYTHONPATH": str(ROOT),
        "PREFECT_HOME": str(home),
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
        "PREFECT_LOGGING_LEVEL": "INFO",
    }
    done = subprocess.run([sys.executable, "-m", "flows.train_alexnet"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (pipeline / "receipt.txt").read_text() == "ok"
    said = done.stdout + done.stderr
    assert said.index("making") < said.index("publishing")
    assert "no artifact for publish" in said


def test_the_deployment_is_what_the_readme_says() -> None:
    import yaml

    (deployment,) = yaml.safe_load((ROOT / "prefect.yaml").read_text())["deployments"]
    assert deployment["name"] == "train-alexnet"
    assert deployment["entrypoint"] == "flows/train_alexnet.py:train_alexnet"
    assert deployment["work_pool"]["name"] == "gpu"
    assert deployment["schedules"][0]["cron"]
    assert "concurrency_limit" not in deployment  # it would kill retries: the pool has the limit
    assert json.dumps(deployment["parameters"])
