"""The flow `train-alexnet`: the stages of dvc.yaml up to publish, one task each, in the order DVC gives.

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

from flows import stage as stages
from flows.dag import stages_for

METRICS = Path("artifacts/metrics.json")
RECEIPT = Path("artifacts/receipt.json")


def can_help(_task: Task[..., Any], _run: TaskRun, state: State[Any]) -> bool:
    """Whether running the stage again can end otherwise: it failed for a reason that passes."""
    return isinstance(state.data, stages.StagePassing)


# The one retry policy, on the task: a flow's own retries do not get along with a deployment's concurrency limit.
# No cache of Prefect's: whether there is anything to do is DVC's to say.
@task(
    name="stage",
    task_run_name="{stage}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=exponential_backoff(backoff_factor=30),
    retry_jitter_factor=0.2,
    retry_condition_fn=can_help,
)
def repro(stage: str) -> None:
    """Brings one stage up to date."""
    logger = get_run_logger()
    stages.run(stage, logger.info)


@flow(name="train-alexnet", persist_result=False)
def train_alexnet(target: str = "publish", max_lateness_hours: float = 12.0) -> Any:
    """From images to a published model.

    Args:
        target: The stage to bring up to date, with all that it needs.
        max_lateness_hours: A scheduled run that could not start for so long is dropped: when a worker comes back,
            everything that was missed would run, one after the other.
    """
    late = hours_late(dt.datetime.now(dt.UTC))
    if late > max_lateness_hours:
        return Cancelled(message=f"{late:.1f} hours late, more than {max_lateness_hours:g}; the next scheduled run will do it")
    for stage in stages_for(target):
        repro(stage)
        show(stage)
    return None


def hours_late(now: dt.datetime) -> float:
    """By how many hours this run missed its schedule; 0 for one that somebody asked for."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or not run.auto_scheduled or run.expected_start_time is None:
        return 0.0
    return max(0.0, (now - run.expected_start_time).total_seconds() / 3600)


def show(stage: str) -> None:
    """Puts a stage's result on the run's page. What cannot be shown must not fail a run that trained for days."""
    maker: dict[str, Callable[[], object]] = {"evaluate": _show_metrics, "publish": _show_release}
    try:
        maker.get(stage, lambda: None)()
    except Exception as error:  # noqa: BLE001  whatever it is, the model counts
        get_run_logger().warning("no artifact for %s: %s", stage, error)


def _show_metrics() -> None:
    create_table_artifact(key="metrics", table=metric_rows(json.loads(METRICS.read_text())), description="Errors, as fractions")


def metric_rows(metrics: dict[str, Any]) -> list[dict[str, Any]]:
    """One row a protocol and baseline: its name and its errors."""
    results = {name: value for name, value in metrics.items() if isinstance(value, dict) and name != "baselines"}
    results |= {f"baseline: {name}": value for name, value in metrics.get("baselines", {}).items()}
    return [{"protocol": name.replace("_", " ")} | errors for name, errors in results.items()]


def _show_release() -> None:
    receipt: dict[str, Any] = json.loads(RECEIPT.read_text())
    lines = [
        f"| {name.replace('_', ' ')} | {value} |" for name, value in receipt.items() if isinstance(value, (str, int, float))
    ]
    create_markdown_artifact(
        key="release", markdown="\n".join(["| release | |", "|---|---|", *lines]), description="What was published"
    )


def main(arguments: list[str] | None = None) -> int:
    """Runs the flow here, with a server of its own unless one is configured. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m flows.train_alexnet", description="From images to a published model.")
    parser.add_argument("--target", default="publish", help="the stage to bring up to date, with all that it needs")
    target = parser.parse_args(arguments).target
    try:
        stages_for(target)  # before a server is started for nothing
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    try:
        train_alexnet(target=target)
    except stages.StageFailed as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
