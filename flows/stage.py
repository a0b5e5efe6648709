"""Running one stage under DVC: output passed on line by line, failures classified, processes ended with the flow."""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import psutil

STATUS = Path(".local/status")  # each stage writes how it ended to NAME.json; DVC's own exit status is always 255
_GRACE_SECONDS = 25.0  # enough for a training step and a checkpoint; a Prefect worker kills after 30
_TAIL_LINES = 30


class StageError(RuntimeError):
    """A stage failed, and would fail again with the same input."""


class RetryableStageError(StageError):
    """A stage failed for a transient reason: a lock of another run, an unreachable store, a kill from outside."""


def run(stage: str, on_line: Callable[[str], None]) -> None:
    """Runs `dvc repro` on one stage; DVC decides whether there is anything to do.

    Args:
        stage: Its name in dvc.yaml.
        on_line: Called with each line of output as it is printed.

    Raises:
        RetryableStageError: running it again later may succeed.
        StageError: it will not.
    """
    started = time.time()
    # In the flow's process group, so that signals sent to the group reach the stage.
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--single-item", stage],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    try:
        for line in process.stdout:
            if line.strip():
                tail.append(line.rstrip())
                on_line(tail[-1])
        exit_status = process.wait()
    except BaseException:
        _terminate(process)
        raise
    finally:
        process.stdout.close()
    if exit_status:
        raise classify(stage, exit_status, list(tail), _read_status(stage, since=started))


def classify(stage: str, exit_status: int, tail: list[str], status: dict[str, object] | None) -> StageError:
    """The exception for a failed `dvc repro`.

    Args:
        stage: Its name in dvc.yaml.
        exit_status: DVC's.
        tail: DVC's last lines.
        status: The stage's status file; None if the stage ended without writing one.
    """
    text = "\n".join(tail)
    if "is busy" in text or "Unable to acquire lock" in text:
        return RetryableStageError(f"{stage}: locked by another run: {tail[-1]}")
    if status and status.get("error"):
        kind = RetryableStageError if status.get("retryable") else StageError
        return kind(f"{stage}: {status['error']}")
    if status is None and any(f"exited with {code}" in text for code in ("-9", "137", "-15", "143")):
        return RetryableStageError(f"{stage}: killed from outside; finished work is kept, run it again")
    return StageError(f"{stage}: dvc ended with status {exit_status}: {tail[-1] if tail else 'no output'}")


def _environment() -> dict[str, str]:
    """This process's environment with this interpreter's programs first on PATH, no telemetry and unbuffered output."""
    programs = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    quiet = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return os.environ | quiet | {"PATH": f"{programs}{os.pathsep}{path}", "PYTHONUNBUFFERED": "1"}


def _read_status(stage: str, since: float) -> dict[str, object] | None:
    """The stage's status file, unless it is older than `since` and so about another run."""
    path = STATUS / f"{stage}.json"
    try:
        return dict(json.loads(path.read_text())) if path.stat().st_mtime >= since else None
    except (FileNotFoundError, ValueError):
        return None


def _terminate(process: "subprocess.Popen[str]") -> None:
    """Ends the stage, then DVC, which dies of SIGTERM at once and would leave the stage running."""
    try:
        dvc = psutil.Process(process.pid)
        stages = list(reversed(dvc.children(recursive=True)))
    except psutil.NoSuchProcess:
        return
    for send, seconds in ((psutil.Process.terminate, _GRACE_SECONDS), (psutil.Process.kill, 5.0)):
        for member in stages:
            try:
                send(member)
            except psutil.NoSuchProcess:
                continue
        if not psutil.wait_procs(stages, timeout=seconds)[1]:
            break
    process.terminate()
    try:
        process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
