"""The flow `train-alexnet`: the stages of dvc.yaml up to publish, one task each, in topological order.

python -m flows.train_alexnet
"""

import argparse
import datetime as dt
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prefect import Task, flow, get_run_logger, task
from prefect.artifacts import create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.states import Cancelled
from prefect.tasks import exponential_backoff

from flows.dag import stages_for
from flows.stage import RetryableStageError, StageError, repair, run

METRICS = Path("artifacts/metrics.json")
RECEIPT = Path("artifacts/receipt.json")


def is_retryable(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether the task failed for a transient reason; Prefect's `retry_condition_fn`."""
    return isinstance(state.data, RetryableStageError)


# The only retry policy is the task's: a flow's own retries conflict with a deployment's concurrency limit.
# Prefect caches nothing: DVC decides whether there is anything to do.
@task(
    name="stage",
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=30),
    retry_jitter_factor=0.2,
    retry_condition_fn=is_retryable,
)
def repro(stage: str) -> None:
    """Runs `dvc repro` on one stage."""
    run(stage, get_run_logger().info)


@flow(name="train-alexnet", persist_result=False)
def train_alexnet(target: str = "publish", max_lateness_hours: float = 12.0) -> Any:
    """From images to a published model.

    Args:
        target: The stage to reproduce, after the stages it depends on.
        max_lateness_hours: A scheduled run that starts later than this is cancelled: a worker that comes back
            would otherwise run everything it missed, one after the other.
    """
    late = hours_late(dt.datetime.now(dt.UTC))
    if late > max_lateness_hours:
        return Cancelled(message=f"{late:.1f} hours late, more than {max_lateness_hours:g}; the next scheduled run will do it")
    repair(get_run_logger().warning)
    for stage in stages_for(target):
        repro(stage)
        create_artifact(stage)
    return None


def hours_late(now: dt.datetime) -> float:
    """Hours between this run's scheduled start and now; 0 for a run that was not scheduled."""
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    if flow_run is None or not flow_run.auto_scheduled or flow_run.expected_start_time is None:
        return 0.0
    return max(0.0, (now - flow_run.expected_start_time).total_seconds() / 3600)


def create_artifact(stage: str) -> None:
    """Adds a stage's result to the flow run's page. An artifact that cannot be made is logged: it must not fail the run."""
    create: dict[str, Callable[[], object]] = {"evaluate": _create_metrics, "publish": _create_release}
    try:
        create.get(stage, lambda: None)()
    except Exception as error:  # noqa: BLE001  no error of Prefect's or of a file is worth days of training
        get_run_logger().warning("no artifact for %s: %s", stage, error)


def _create_metrics() -> None:
    create_table_artifact(key="metrics", table=metric_rows(json.loads(METRICS.read_text())), description="Errors, as fractions")


def metric_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each test protocol and each baseline: its name and its errors."""
    results = {name: value for name, value in metrics.items() if isinstance(value, dict) and name != "baselines"}
    results |= {f"baseline: {name}": value for name, value in metrics.get("baselines", {}).items()}
    return [{"protocol": name.replace("_", " ")} | errors for name, errors in results.items()]


def _create_release() -> None:
    receipt: dict[str, Any] = json.loads(RECEIPT.read_text())
    lines = [
        f"| {name.replace('_', ' ')} | {value} |" for name, value in receipt.items() if isinstance(value, (str, int, float))
    ]
    create_markdown_artifact(
        key="release", markdown="\n".join(["| release | |", "|---|---|", *lines]), description="What was published"
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the flow in this process, with an ephemeral server unless one is configured. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m flows.train_alexnet", description="From images to a published model.")
    parser.add_argument("--target", default="publish", help="the stage to reproduce, after the stages it depends on")
    target = parser.parse_args(arguments).target
    try:
        stages_for(target)  # before a server is started in vain
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        train_alexnet(target=target)
    except StageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
