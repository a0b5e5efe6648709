"""Running one stage under DVC: output line by line, failures classified, no process left behind."""

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

from flows.stage import RetryableStageError, StageError, _read, classify, run

STATUS = "import json, pathlib; p = pathlib.Path('.local/status'); p.mkdir(parents=True, exist_ok=True)\n"

MAKE_BY_VARIABLE = "import os, pathlib; pathlib.Path('made.txt').write_text(os.environ['ALEXNET_SOURCE'])"


def _fail(pipeline: Path, retryable: bool) -> None:
    status = json.dumps({"ok": False, "error": "no bucket", "retryable": retryable})
    (pipeline / "make.py").write_text(f"{STATUS}(p / 'make.json').write_text({status!r})\nraise SystemExit(1)\n")


def test_a_stage_runs_once_and_its_output_is_passed_on(pipeline: Path) -> None:
    lines: list[str] = []
    first = run("make", lines.append)
    assert "making" in lines
    assert (pipeline / "made.txt").read_text() == "1"
    assert (first.state, first.timing) == ("made", {"images_per_second": 20.5})
    again: list[str] = []
    second = run("make", again.append)
    assert "making" not in again
    assert (second.state, second.timing) == ("unchanged", {})
    (pipeline / "input.txt").write_text("2")
    run("make", lines.append)
    (pipeline / "input.txt").write_text("1")
    assert run("make", again.append).state == "from the cache"


def test_variables_reach_the_stage_and_dvcs_advice_does_not_reach_the_log(pipeline: Path) -> None:
    (pipeline / "make.py").write_text(MAKE_BY_VARIABLE)
    lines: list[str] = []
    run("make", lines.append, {"ALEXNET_SOURCE": "here"})
    assert (pipeline / "made.txt").read_text() == "here"
    assert [line for line in lines if "git" in line or "dvc push" in line or "autostage" in line or "lock file" in line] == []
    assert any("Running stage 'make'" in line for line in lines)


def test_a_transient_and_a_permanent_failure_are_classified(pipeline: Path) -> None:
    _fail(pipeline, retryable=True)
    with pytest.raises(RetryableStageError, match="^make: no bucket$"):
        run("make", lambda line: None)
    _fail(pipeline, retryable=False)
    with pytest.raises(StageError, match="^make: no bucket$") as error:
        run("make", lambda line: None)
    assert not isinstance(error.value, RetryableStageError)


def test_damaged_files_of_dvc_are_repaired_and_the_stage_is_run_again(pipeline: Path) -> None:
    run("make", lambda line: None)
    (pipeline / "dvc.lock").write_text("schema: '2.0'\nstag")
    (pipeline / ".dvc" / "tmp" / "rwlock").write_text("{")
    lines: list[str] = []
    with pytest.raises(RetryableStageError, match="^make: DVC's own files were damaged, and are repaired; run it again$"):
        run("make", lines.append)
    assert [line for line in lines if line.startswith("dvc: ")]
    run("make", lines.append)
    assert "making" not in lines


def test_the_status_file_of_an_earlier_run_is_ignored(pipeline: Path) -> None:
    status = pipeline / ".local" / "status" / "make.json"
    status.parent.mkdir(parents=True)
    status.write_text(json.dumps({"ok": False, "error": "old", "retryable": True}))
    os.utime(status, (1, 1))
    (pipeline / "make.py").write_text("raise SystemExit(7)\n")
    with pytest.raises(StageError, match=r"^make: dvc ended with status 255: .*exited with 7") as error:
        run("make", lambda line: None)
    assert not isinstance(error.value, RetryableStageError)


def test_a_stage_locked_by_another_run_is_retryable(pipeline: Path) -> None:
    (pipeline / "make.py").write_text("import pathlib, time\npathlib.Path('began').touch()\ntime.sleep(60)\n")
    other = subprocess.Popen([sys.executable, "-m", "dvc", "repro", "make"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        _await((pipeline / "began").exists)
        with pytest.raises(RetryableStageError, match="make: locked by another run"):
            run("make", lambda line: None)
    finally:
        for process in [*psutil.Process(other.pid).children(recursive=True), other]:
            process.kill()
        other.wait()
        assert other.stdout
        other.stdout.close()


def test_a_stage_killed_from_outside_is_retryable(pipeline: Path) -> None:
    (pipeline / "make.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    with pytest.raises(RetryableStageError, match="make: killed from outside; finished work is kept"):
        run("make", lambda line: None)


def test_a_killed_dvc_takes_its_stage_along_and_is_retryable(pipeline: Path) -> None:
    """The stage holds the pipe that the flow reads, and would train to its end unseen."""
    (pipeline / "make.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "def end(*_):\n    pathlib.Path('checkpoint').touch()\n    sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('stage', os.getpid(), flush=True)\ntime.sleep(60)\n"
    )
    stages: list[psutil.Process] = []

    def kill_dvc(line: str) -> None:
        if line.startswith("stage "):
            stages.append(psutil.Process(int(line.split()[1])))
            dvc = next(one for one in stages[0].parents() if "dvc" in one.cmdline())
            dvc.kill()

    with pytest.raises(RetryableStageError, match="make: dvc was ended by SIGKILL; finished work is kept"):
        run("make", kill_dvc)
    assert not stages[0].is_running() or stages[0].status() == psutil.STATUS_ZOMBIE
    assert (pipeline / "checkpoint").exists()


def test_sigterm_to_the_flow_ends_the_stage_after_a_grace_period(pipeline: Path) -> None:
    """DVC dies of SIGTERM at once and would leave the training running."""
    (pipeline / "make.py").write_text(
        "import os, pathlib, signal, sys, time\n"
        "def end(*_):\n    time.sleep(1)\n    print('checkpoint is step-7', flush=True)\n"
        "    pathlib.Path('checkpoint').touch()\n    sys.exit(143)\n"
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
        stdout=subprocess.PIPE,
        text=True,
    )
    _await(lambda: (pipeline / "began").exists() and (pipeline / "began").read_text() != "")
    training = psutil.Process(int((pipeline / "began").read_text()))
    flow.send_signal(signal.SIGTERM)
    said, _ = flow.communicate(timeout=30)
    assert flow.returncode == 1
    assert "checkpoint is step-7" in said
    assert (pipeline / "checkpoint").exists()
    assert not training.is_running() or training.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("tail", "status", "kind"),
    [
        (["'x' is busy, it is being blocked by:"], None, RetryableStageError),
        (["ERROR: failed to reproduce 'make': failed to run: python make.py, exited with -9"], None, RetryableStageError),
        (["ERROR: failed to reproduce 'make': failed to run: python make.py, exited with 1"], None, StageError),
        (["ERROR: bad dvc.yaml"], None, StageError),
        (["anything"], {"error": "store away", "retryable": True}, RetryableStageError),
        (["anything"], {"error": "label 12", "retryable": False}, StageError),
        ([], None, StageError),
    ],
)
def test_failures_are_classified(tail: list[str], status: dict[str, Any] | None, kind: type[StageError]) -> None:
    assert type(classify("make", 255, tail, status)) is kind


def _await(condition: Any, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("body", [b"", b"null", b"[1]", b"\xff\xfe{\0", b"[" * 20_000, None], ids=lambda body: str(body)[:8])
def test_a_damaged_note_of_a_stage_is_none(body: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "make.json"
    os.mkfifo(path) if body is None else path.write_bytes(body)
    assert _read(tmp_path, "make", 0.0) is None
    path.unlink()
    path.symlink_to(path.name)
    assert _read(tmp_path, "make", 0.0) is None
