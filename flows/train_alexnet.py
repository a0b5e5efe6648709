"""The flows: stages of dvc.yaml, one task each, in topological order. Deployments of all of them are in prefect.yaml.

python -m flows.train_alexnet
"""

import argparse
import datetime as dt
import json
import subprocess
import sys
from collections.abc import Mapping
from typing import Any

from prefect import Task, flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import FlowRunContext
from prefect.runtime import flow_run
from prefect.states import Cancelled, Completed
from prefect.tasks import exponential_backoff

from flows import log, page
from flows.dag import stages_for
from flows.settings import RunSettings, laid_over_params
from flows.stage import RetryableStageError, StageError, StageResult, environment, repair, run

_NO_SETTINGS = RunSettings()


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
def repro(stage: str, variables: Mapping[str, str]) -> StageResult:
    """Runs `dvc repro` on one stage, with these environment variables."""
    logger, training = get_run_logger(), page.Training()

    def on_line(line: str) -> None:
        message = log.log(logger, line, stage)
        if stage == "train":
            training.progress(message)

    return run(stage, on_line, {"ALEXNET_RUN": str(flow_run.id)} | dict(variables))


@flow(name="train-alexnet", persist_result=False)
def train_alexnet(settings: RunSettings = _NO_SETTINGS, target: str = "publish", max_lateness_hours: float = 12.0) -> Any:
    """From images to a published model.

    Args:
        settings: What differs from the checkout's params.yaml and the worker's environment.
        target: The stage to reproduce, after the stages it depends on.
        max_lateness_hours: A scheduled run that starts later than this is cancelled: a worker that comes back
            would otherwise run everything it missed, one after the other.
    """
    return make(settings, target, max_lateness_hours)


@flow(name="retrain-alexnet", persist_result=False)
def retrain_alexnet(settings: RunSettings = _NO_SETTINGS, max_lateness_hours: float = 12.0) -> Any:
    """Trains again if the source, the numbers or the code have changed, and publishes; says "nothing changed" otherwise.

    Args:
        settings: What differs from the checkout's params.yaml and the worker's environment.
        max_lateness_hours: A scheduled run that starts later than this is cancelled.
    """
    return make(settings, "publish", max_lateness_hours)


@flow(name="validate-data", persist_result=False)
def validate_data(settings: RunSettings = _NO_SETTINGS) -> Any:
    """Lists the source and decodes every image: faults, and the expectations of the whole, in the Data Docs.

    Args:
        settings: What differs from the checkout's params.yaml and the worker's environment.
    """
    return make(settings, "validate", float("inf"))


@flow(name="evaluate-release", persist_result=False)
def evaluate_release(release: str = "alexnet@latest", settings: RunSettings = _NO_SETTINGS) -> Any:
    """Measures a released model on the current validation or test images.

    Args:
        release: NAME@VERSION or NAME@ALIAS in the registry.
        settings: What differs from the checkout's params.yaml and the worker's environment.
    """
    log.configure()
    variables = settings.variables()
    with laid_over_params(settings):
        _make_stages("shard", variables)
        return Completed(message=measure(release, variables))


@task(name="measure", task_run_name="measure {release}", cache_policy=NO_CACHE, persist_result=False)
def measure(release: str, variables: Mapping[str, str]) -> str:
    """The errors of a release on the present shards, by the center crop; by all protocols on the page.

    Raises:
        StageError: it cannot be had, or has no network for these classes.
    """
    command = [sys.executable, "-m", "pipelines.cli.main", "ensemble", release, "--json"]
    done = subprocess.run(command, env=environment() | dict(variables), capture_output=True, text=True, check=False)
    if done.returncode:
        raise StageError(done.stderr.strip() or f"alexnet ensemble {release}: ended with status {done.returncode}")
    protocols = json.loads(done.stdout)
    page.measured(release, protocols)
    return page.measured_message(release, protocols)


def make(settings: RunSettings, target: str, max_lateness_hours: float) -> Any:
    """Reproduces the stages up to the target, and the final state of a run that did so."""
    log.configure()
    late = hours_late(dt.datetime.now(dt.UTC))
    if late > max_lateness_hours:
        return Cancelled(message=f"{late:.1f} hours late, more than {max_lateness_hours:g}; the next scheduled run will do it")
    with laid_over_params(settings):
        before = page.released_error() if target == "publish" else None
        results = _make_stages(target, settings.variables(), before)
        if target == "publish" and any(result.state == "made" for result in results):
            _push()
        return Completed(message=page.message(results, before))


def _make_stages(target: str, variables: Mapping[str, str], before: float | None = None) -> list[StageResult]:
    results: list[StageResult] = []
    repair(get_run_logger().warning)
    try:
        for stage in stages_for(target):
            results.append(repro(stage, variables))
            if results[-1].state == "made" and stage == "shard" and before is not None:
                page.drift()
            elif results[-1].state == "made" and stage == "evaluate":
                page.error_rates(before)
                page.pictures()
            elif results[-1].state == "made" and stage == "publish":
                page.release()
    finally:
        page.stages(results)
    return results


def _push() -> None:
    """Keeps the outputs where other machines find them: `dvc push`, if a remote is configured. Its failure is logged."""
    from dvc.config import Config

    if Config().get("core", {}).get("remote"):
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "push", "--run-cache", "--quiet"],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            get_run_logger().warning("dvc push: %s", done.stderr.strip() or f"ended with status {done.returncode}")
        else:
            get_run_logger().info("dvc push: every output is in DVC's remote")


def hours_late(now: dt.datetime) -> float:
    """Hours between this run's scheduled start and now; 0 for a run that was not scheduled."""
    context = FlowRunContext.get()
    this = context.flow_run if context else None
    if this is None or not this.auto_scheduled or this.expected_start_time is None:
        return 0.0
    return max(0.0, (now - this.expected_start_time).total_seconds() / 3600)


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
