"""How a stage ends, on its terminal and in its status file; and how it shows that it gets on."""

import errno
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest

from alexnet.errors import DataError, ParamsError
from flows.stage import RetryableStageError, StageError, classify
from pipelines.runtime import console, environment
from pipelines.runtime.errors import Unreachable


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def end(main: Callable[[], object]) -> tuple[object, dict[str, Any]]:
    """The exit status of a stage that ends by itself, and what it left about it."""
    with pytest.raises(SystemExit) as ended:
        console.run("validate", lambda: (main(), None)[1])
    return ended.value.code, json.loads(Path(".local/status/validate.json").read_text())


def fail(error: BaseException) -> Callable[[], NoReturn]:
    def main() -> NoReturn:
        raise error

    return main


def test_a_stage_that_succeeds_prints_nothing_and_writes_its_status(capsys: pytest.CaptureFixture[str]) -> None:
    console.run("validate", lambda: None)
    assert json.loads(Path(".local/status/validate.json").read_text()) == {"ok": True, "error": None, "retryable": False}
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("error", "line", "retryable"),
    [
        (ParamsError("train: missing lr"), "train: missing lr", False),
        (DataError("a.jpg: truncated"), "a.jpg: truncated", False),
        (Unreachable("s3://b: away"), "s3://b: away", True),
        (
            OSError(errno.ENOSPC, "No space left on device", "artifacts/x"),
            "artifacts/x: No space left on device; free some space and run again, what is finished is kept",
            False,
        ),
        (
            OSError(errno.EDQUOT, "full"),
            "disk: Disk quota exceeded; free some space and run again, what is finished is kept",
            False,
        ),
        (
            FileNotFoundError(errno.ENOENT, "gone", "nope"),
            "nope: No such file or directory; what earlier stages make, `dvc repro validate` makes first",
            False,
        ),
        (PermissionError(errno.EACCES, "no", "artifacts"), "artifacts: Permission denied", False),
        (OSError(errno.EROFS, "no", "artifacts/x"), "artifacts/x: Read-only file system", False),
    ],
)
def test_a_mistake_of_the_users_is_one_line(
    error: Exception, line: str, retryable: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    status, said = end(fail(error))
    assert status == 1
    assert capsys.readouterr().err == f"validate: error: {line}\n"
    assert said == {"ok": False, "error": line, "retryable": retryable}


def test_an_error_of_a_device_that_is_full_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")

    def main() -> None:
        with Path("/dev/full").open("wb", buffering=0) as file:
            file.write(b"x")

    assert end(main)[0] == 1
    assert capsys.readouterr().err == (
        "validate: error: disk: No space left on device; free some space and run again, what is finished is kept\n"
    )


def test_an_os_error_without_a_path_keeps_its_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert end(fail(OSError(errno.EIO, "bad sector", "x")))[0] == 1
    assert capsys.readouterr().err == "validate: error: x: Input/output error\n"
    assert end(fail(FileNotFoundError(errno.ENOENT, "no path with it")))[0] == 1
    assert "Traceback" in capsys.readouterr().err


def test_an_unexpected_exception_is_raised_unchanged() -> None:
    with pytest.raises(ZeroDivisionError):
        console.run("validate", lambda: print(1 // 0))
    said = json.loads(Path(".local/status/validate.json").read_text())
    assert said == {"ok": False, "error": "ZeroDivisionError: integer division or modulo by zero", "retryable": False}


@pytest.mark.parametrize("signal_number", [2, 15])
def test_a_stage_that_a_signal_stopped_is_retryable(signal_number: int) -> None:
    """Training keeps a checkpoint and ends with the status that a shell would give; the flow reads it so."""
    status, said = end(fail(SystemExit(128 + signal_number)))
    assert status == 128 + signal_number
    error = classify("validate", 255, [f"exited with {status}"], said)
    assert type(error) is RetryableStageError
    assert str(error) == "validate: stopped from outside; what it had finished is kept"


def test_a_wrong_command_line_is_not_retryable() -> None:
    status, said = end(fail(SystemExit(2)))
    assert status == 2
    assert type(classify("validate", 255, [], said)) is StageError


def test_a_stage_whose_outputs_another_process_makes_names_it_and_is_retryable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "timeout_seconds", lambda: 0.2)
    nested: list[tuple[object, dict[str, Any]]] = []
    console.run("validate", lambda: nested.append(end(lambda: None)))
    ((code, status),) = nested
    assert code == 1
    assert status["error"].startswith(f"validate: its outputs: process {os.getpid()} has held .local/locks/validate-")
    assert status["retryable"]
    console.run("validate", lambda: None)


def test_an_error_is_printed_also_when_its_status_cannot_be_written(capsys: pytest.CaptureFixture[str]) -> None:
    Path(".local").touch()
    with pytest.raises(SystemExit):
        console.run("validate", fail(DataError("a.jpg: truncated")))
    assert capsys.readouterr().err == "validate: error: a.jpg: truncated\n"


def test_progress_without_a_terminal_is_a_line_every_15_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    assert list(console.track(["ab", "c", "def", "gh"], 8, "shard", size=len)) == ["ab", "c", "def", "gh"]
    assert capsys.readouterr() == ("", "shard: 3 img of 8 img (0 img/s)\nshard: 8 img of 8 img (0 img/s)\n")


def test_progress_on_a_terminal_is_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(console, "is_terminal", lambda: True)
    assert list(console.track("ab", 2, "shard")) == ["a", "b"]
    out, err = capsys.readouterr()
    assert out == ""
    assert "shard:" in err
    assert "0/2" in err


def test_bytes_transferred_without_a_terminal_are_a_line_on_stderr(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = itertools.count(0.0, 10.0)
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with console.progress(4_000_000, "publish", "B") as advance:
        advance(1_000_000)
        advance(2_000_000)
    assert capsys.readouterr() == ("", "publish: 3.00MB of 4.00MB (150kB/s)\n")


def test_a_stage_gets_the_paths_of_its_command_line_in_the_order_of_its_options(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def main(index: Path, report: Path) -> None:
        print(f"{index} then {report}")

    monkeypatch.setattr(sys, "argv", ["validate", "--report", "b.json", "--index", "a.parquet"])
    console.run_on_paths("validate", main, index="Parquet to write", report="JSON to write")
    assert "a.parquet then b.json" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["validate", "--index", "a.parquet"])
    with pytest.raises(SystemExit, match="^2$"):
        console.run_on_paths("validate", main, index="Parquet to write", report="JSON to write")
    assert "required: --report" in capsys.readouterr().err


def test_a_name_cannot_steer_the_terminal_or_end_a_stage_in_another_locale() -> None:
    code = (
        "from pipelines.runtime import console; from alexnet.errors import DataError\n"
        "def main():\n console.say('a \\x1b[31mred \\u732b\\nb'); raise DataError('c \\x1b]0;title \\u202e \\u732b')\n"
        "console.run('fetch', main)"
    )
    env = os.environ | {"PYTHONIOENCODING": "latin-1", "PYTHONPATH": str(Path(console.__file__).parents[2])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env)
    assert done.returncode == 1
    assert done.stdout.decode("latin-1").splitlines() == [r"a \x1b[31mred \u732b", "b"]
    assert done.stderr.decode("latin-1").strip() == r"fetch: error: c \x1b]0;title \u202e \u732b"


def test_what_a_page_shows_can_be_seen() -> None:
    assert console.legible("\u202egpj.\x1b[31m\u200b") == "[202E]gpj.[001B][31m[200B]"
    assert console.legible(text := "Größe 猫\n\t\u3000\xa0\u0645\u06cc\u200c\u062e") == text
    assert console.legible(7) == 7
