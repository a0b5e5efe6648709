"""Running one stage under DVC: output passed on line by line, failures classified, processes ended with the flow."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import psutil

# What DVC advises a person who works with git; a third of a run's log.
_ADVICE = re.compile(
    r"To track the changes with git, run:|\s+git add |To enable auto staging, run:|\s+dvc config core\.autostage true"
    r"|Use `dvc push` to send|(Generating|Updating) lock file"
)
STATUS = Path(".local/status")  # each stage writes how it ended to NAME.json; DVC's own exit status is always 255
TIMINGS = Path(".local/timings")  # and what it took
_GRACE_SECONDS = 25.0  # enough for a training step and a checkpoint; a Prefect worker kills after 30
_TAIL_LINES = 30
_RUN_ID = "ALEXNET_STAGE_RUN"  # set for dvc and inherited by what it starts, also when dvc is dead and its children are orphans


class StageError(RuntimeError):
    """A stage failed, and would fail again with the same input."""


class RetryableStageError(StageError):
    """A stage failed for a transient reason: a lock of another run, an unreachable store, a kill from outside."""


@dataclass(frozen=True)
class StageResult:
    """What came of a stage. timing: as the stage itself has measured it; empty where it was not made now."""

    stage: str
    state: Literal["made", "unchanged", "from the cache"]
    seconds: float
    timing: Mapping[str, float | None]


def run(stage: str, on_line: Callable[[str], None], variables: Mapping[str, str] | None = None) -> StageResult:
    """Runs `dvc repro` on one stage; DVC decides whether there is anything to do.

    Args:
        stage: Its name in dvc.yaml.
        on_line: Called with each line of output as it is printed, DVC's advice left out.
        variables: Environment variables for the stage, beside this process's.

    Raises:
        RetryableStageError: running it again later may succeed.
        StageError: it will not.
    """
    started, run_id = time.time(), uuid.uuid4().hex
    # In the flow's process group, so that signals sent to the group reach the stage.
    process = subprocess.Popen(
        [sys.executable, "-m", "dvc", "repro", "--single-item", stage],
        env=environment() | dict(variables or {}) | {_RUN_ID: run_id},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert process.stdout
    # An orphan holds the pipe open: the loop below would read it to its end.
    orphans = threading.Thread(target=_end_orphans, args=(process, run_id), daemon=True)
    orphans.start()
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    state: Literal["made", "unchanged", "from the cache"] = "unchanged"

    def read(lines: Iterable[str]) -> None:
        nonlocal state
        for line in map(str.rstrip, lines):
            if line and not _ADVICE.match(line):
                tail.append(line)
                on_line(line)
                state = "made" if line.startswith("Running stage ") else "from the cache" if " is cached - " in line else state

    try:
        read(process.stdout)
        exit_status = process.wait()
        orphans.join()
    except BaseException:
        _terminate(process, run_id)
        read(process.stdout)  # which checkpoint it wrote
        raise
    finally:
        process.stdout.close()
    if exit_status:
        status = _read(STATUS, stage, since=started)
        if status is None and repair(on_line) and exit_status > 0:
            raise RetryableStageError(f"{stage}: DVC's own files were damaged, and are repaired; run it again")
        raise classify(stage, exit_status, list(tail), status)
    return StageResult(stage, state, time.time() - started, _read(TIMINGS, stage, since=started) or {})


def repair(on_line: Callable[[str], None]) -> bool:
    """Repairs DVC's own files, where a kill or the disk has damaged them; see infra/repair.py. Returns whether it had to."""
    command = [sys.executable, "-m", "infra.repair"]
    lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False).stdout.splitlines()
    for line in lines:
        on_line(line)
    return bool(lines)


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
    if exit_status < 0:
        name = signal.Signals(-exit_status).name
        return RetryableStageError(f"{stage}: dvc was ended by {name}; finished work is kept, run it again")
    if status is None and any(f"exited with {code}" in text for code in ("-9", "137", "-15", "143")):
        return RetryableStageError(f"{stage}: killed from outside; finished work is kept, run it again")
    return StageError(f"{stage}: dvc ended with status {exit_status}: {tail[-1] if tail else 'no output'}")


def environment() -> dict[str, str]:
    """This process's environment with this interpreter's programs first on PATH, no telemetry and unbuffered output."""
    programs = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    quiet = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return os.environ | quiet | {"PATH": f"{programs}{os.pathsep}{path}", "PYTHONUNBUFFERED": "1"}


def _read(folder: Path, stage: str, since: float) -> dict[str, Any] | None:
    """The stage's own file in the folder; None where it is damaged, or older than `since` and so about another run."""
    path = folder / f"{stage}.json"
    try:
        found = json.loads(path.read_bytes()) if path.is_file() and path.stat().st_mtime >= since else None
    except (OSError, ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def _end_orphans(process: "subprocess.Popen[str]", run_id: str) -> None:
    """Waits for DVC, then ends what it left running: a DVC that is killed ends none of its stages."""
    process.wait()
    _end(_started_by(run_id))


def _terminate(process: "subprocess.Popen[str]", run_id: str) -> None:
    """Ends the stage, then DVC, which dies of SIGTERM at once and would leave the stage running."""
    _end([one for one in _started_by(run_id) if one.pid != process.pid])
    process.terminate()
    try:
        process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _started_by(run_id: str) -> list[psutil.Process]:
    """DVC and all that it started, as far as it is still running; the newest first."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(_RUN_ID) == run_id:
                found.append(process)
        except psutil.Error:
            continue  # it has ended, or is another user's
    return sorted(found, key=lambda process: process.create_time(), reverse=True)


def _end(processes: list[psutil.Process]) -> None:
    """Sends SIGTERM, and SIGKILL to what has not ended after a grace period."""
    for send, seconds in ((psutil.Process.terminate, _GRACE_SECONDS), (psutil.Process.kill, 5.0)):
        for process in processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                send(process)
        deadline = time.monotonic() + seconds
        while (processes := [one for one in processes if _is_running(one)]) and time.monotonic() < deadline:
            time.sleep(0.1)


def _is_running(process: psutil.Process) -> bool:
    """Whether it has not ended; an orphan that has may stay a zombie, where nothing reaps it."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
