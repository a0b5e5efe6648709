"""One stage, run by DVC: its lines passed on as they come, its failure told apart, its processes ended with it."""

import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

import psutil

STATUS = Path(".local/status")  # where each stage says how it ended; DVC's own exit status is 255 whatever happened
_GRACE_SECONDS = 25.0  # a training step and a checkpoint fit; a Prefect worker kills after 30
_TAIL = 30


class StageFailed(RuntimeError):
    """A stage did not succeed, and running it again with the same input will not either."""


class StagePassing(StageFailed):
    """A stage did not succeed for a reason that passes: another run, an unreachable store, a kill from outside."""


def run(stage: str, say: Callable[[str], None]) -> None:
    """Brings one stage up to date. DVC decides whether there is anything to do.

    Args:
        stage: Its name in dvc.yaml.
        say: Is given each line of output as it comes.

    Raises:
        StagePassing: trying again later can help.
        StageFailed: it cannot.
    """
    started = time.time()
    # The same process group: what a worker sends to the flow reaches the training too.
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
    tail: deque[str] = deque(maxlen=_TAIL)
    try:
        for line in process.stdout:
            if line.strip():
                tail.append(line.rstrip())
                say(tail[-1])
        status = process.wait()
    except BaseException:
        _end(process)
        raise
    finally:
        process.stdout.close()
    if status:
        raise classify(stage, status, list(tail), _read_status(stage, since=started))


def classify(stage: str, status: int, tail: list[str], said: dict[str, object] | None) -> StageFailed:
    """Why DVC failed, as the exception to raise.

    Args:
        stage: Its name in dvc.yaml.
        status: DVC's exit status.
        tail: DVC's last lines.
        said: What the stage itself left about its end, if it got so far.
    """
    text = "\n".join(tail)
    if "is busy" in text or "Unable to acquire lock" in text:
        return StagePassing(f"{stage}: another run holds it: {tail[-1]}")
    if said and said.get("error"):
        kind = StagePassing if said.get("retryable") else StageFailed
        return kind(f"{stage}: {said['error']}")
    if said is None and any(f"exited with {code}" in text for code in ("-9", "137", "-15", "143")):
        return StagePassing(f"{stage}: killed from outside; what it had finished is kept")
    return StageFailed(f"{stage}: dvc ended with status {status}: {tail[-1] if tail else 'no output'}")


def _environment() -> dict[str, str]:
    """Ours, with the programs of this environment first, and every line passed on at once."""
    programs = str(Path(sys.executable).parent)
    path = os.environ.get("PATH", os.defpath)
    quiet = {"DVC_NO_ANALYTICS": "1", "DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "false", "HF_HUB_DISABLE_TELEMETRY": "1"}
    return os.environ | quiet | {"PATH": f"{programs}{os.pathsep}{path}", "PYTHONUNBUFFERED": "1"}


def _read_status(stage: str, since: float) -> dict[str, object] | None:
    """What the stage said of the run that began at `since`; an older word is about another run."""
    path = STATUS / f"{stage}.json"
    try:
        return dict(json.loads(path.read_text())) if path.stat().st_mtime >= since else None
    except (FileNotFoundError, ValueError):
        return None


def _end(process: "subprocess.Popen[str]") -> None:
    """Ends the stage and then DVC: DVC dies of SIGTERM at once, and would leave the stage running."""
    try:
        dvc = psutil.Process(process.pid)
        family = [*reversed(dvc.children(recursive=True)), dvc]
    except psutil.NoSuchProcess:
        return
    stages = family[:-1]
    for sign, seconds in ((psutil.Process.terminate, _GRACE_SECONDS), (psutil.Process.kill, 5.0)):
        for member in stages:
            try:
                sign(member)
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
