"""One stage under DVC: lines as they come, failures told apart, no process left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from flows import stage as stages
from flows.stage import StageFailed, StagePassing, classify

STATUS = "import json, pathlib; p = pathlib.Path('.local/status'); p.mkdir(parents=True, exist_ok=True)\n"


def _fail(pipeline: Path, retryable: bool) -> None:
    said = json.dumps({"ok": False, "error": "no bucket", "retryable": retryable})
    (pipeline / "make.py").write_text(f"{STATUS}(p / 'make.json').write_text({said!r})\nraise SystemExit(1)\n")


def test_a_stage_runs_once_and_its_lines_come_as_they_are_written(pipeline: Path) -> None:
    lines: list[str] = []
    stages.run("make", lines.append)
    assert "making" in lines
    assert (pipeline / "made.txt").read_text() == "1"
    again: list[str] = []
    stages.run("make", again.append)
    assert "making" not in again


def test_a_failure_that_passes_is_told_from_one_that_does_not(pipeline: Path) -> None:
    _fail(pipeline, retryable=True)
    with pytest.raises(StagePassing, match="^make: no bucket$"):
        stages.run("make", lambda line: None)
    _fail(pipeline, retryable=False)
    with pytest.raises(StageFailed, match="^make: no bucket$") as error:
        stages.run("make", lambda line: None)
    assert not isinstance(error.value, StagePassing)


def test_an_old_word_of_a_stage_says_nothing_of_this_run(pipeline: Path) -> None:
    status = pipeline / ".local" / "status" / "make.json"
    status.parent.mkdir(parents=True)
    status.write_text(json.dumps({"ok": False, "error": "old", "retryable": True}))
    os.utime(status, (1, 1))
    (pipeline / "make.py").write_text("raise SystemExit(7)\n")
    with pytest.raises(StageFailed, match=r"^make: dvc ended with status 255: .*exited with 7") as error:
        stages.run("make", lambda line: None)
    assert not isinstance(error.value, StagePassing)


def test_a_stage_that_another_run_holds_is_one_to_wait_for(pipeline: Path) -> None:
    (pipeline / "make.py").write_text("import pathlib, time\npathlib.Path('began').touch()\ntime.sleep(60)\n")
    other = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "make"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        _await((pipeline / "began").exists)
        with pytest.raises(StagePassing, match="make: another run holds it"):
            stages.run("make", lambda line: None)
    finally:
        stages._end(other)  # type: ignore[arg-type]
        assert other.stdout
        other.stdout.close()


def test_a_stage_killed_from_outside_is_worth_another_try(pipeline: Path) -> None:
    (pipeline / "make.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(StagePassing, match="make: killed from outside; what it had finished is kept"):
        stages.run("make", lambda line: None)


def test_what_ends_the_flow_reaches_the_stage_and_gives_it_time(pipeline: Path) -> None:
    """DVC dies of SIGTERM at once and would leave the training to itself."""
    (pipeline / "make.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "def end(*_):\n    time.sleep(1)\n    pathlib.Path('checkpoint').touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "pathlib.Path('began').write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    flow = subprocess.Popen(
        [
            sys.executable,
            "-c",
            (
                "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))\n"
                "from flows import stage; stage.run('make', print)"
            ),
        ],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
    )
    _await(lambda: (pipeline / "began").exists() and (pipeline / "began").read_text() != "")
    training = psutil.Process(int((pipeline / "began").read_text()))
    flow.send_signal(signal.SIGTERM)
    assert flow.wait(timeout=30) == 1
    assert (pipeline / "checkpoint").exists()
    assert not training.is_running() or training.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("tail", "said", "kind"),
    [
        (["'x' is busy, it is being blocked by:"], None, StagePassing),
        (["ERROR: failed to reproduce 'make': failed to run: python make.py, exited with -9"], None, StagePassing),
        (["ERROR: failed to reproduce 'make': failed to run: python make.py, exited with 1"], None, StageFailed),
        (["ERROR: bad dvc.yaml"], None, StageFailed),
        (["anything"], {"error": "store away", "retryable": True}, StagePassing),
        (["anything"], {"error": "label 12", "retryable": False}, StageFailed),
        ([], None, StageFailed),
    ],
)
def test_failures_by_their_text(tail: list[str], said: dict[str, Any] | None, kind: type[StageFailed]) -> None:
    assert type(classify("make", 255, tail, said)) is kind


def _await(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
