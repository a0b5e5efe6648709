"""The processes of this machine's flow runs, found by the environment that Prefect gives them and their children inherit."""

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

_RUN = "PREFECT__FLOW_RUN_ID"
_STAGE = "ALEXNET_STAGE_RUN"  # flows/stage.py sets it for dvc and what dvc starts
_HOME = "ALEXNET_HOME"
_GRACE_SECONDS = 25.0  # enough for a training step and a checkpoint
_KILL_SECONDS = 5.0


def living_runs(root: Path) -> set[str]:
    """The ids of the flow runs of the checkout `root` whose own process, not only a stage of theirs, is alive."""
    return {run for run, is_flow, _ in _processes(root) if is_flow}


def end(root: Path, orphans_only: bool) -> None:
    """Ends flows and their stages, or only stages that outlived their flow. On SIGTERM training writes a checkpoint."""
    alive = living_runs(root) if orphans_only else set()
    ended = [process for run, _, process in _processes(root) if run not in alive]
    for send, seconds in ((psutil.Process.terminate, _GRACE_SECONDS), (psutil.Process.kill, _KILL_SECONDS)):
        left = [process for process in ended if is_alive(process)]
        for process in left:
            with contextlib.suppress(psutil.NoSuchProcess):
                send(process)
        deadline = time.monotonic() + seconds
        while any(map(is_alive, left)) and time.monotonic() < deadline:
            time.sleep(0.1)


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs and is no zombie."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _processes(root: Path) -> Iterator[tuple[str, bool, psutil.Process]]:
    """Run id, whether it is the flow itself, and process."""
    for process in psutil.process_iter():
        try:
            environment = process.environ()
            if environment.get(_HOME) == str(root) and _RUN in environment and is_alive(process):
                yield environment[_RUN], _STAGE not in environment, process
        except psutil.Error:
            continue  # it has ended, or is another user's
