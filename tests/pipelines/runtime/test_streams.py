"""What a stage prints with ALEXNET_LOG=json: an object a line, whatever printed it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

STAGE = """
import sys, warnings, subprocess
from alexnet.errors import DataError
from pipelines.runtime import console, streams
def main():
    console.say("validate: one\\nvalidate: two")
    console.note("waits")
    list(console.track(range(3), 3, "validate"))
    print("without an end", end="")
    streams.speak_of("alexnet@0123456789abcdef")
    console.say("published")
    {end}
console.run("validate", main)
"""
PART = "from pipelines.runtime import console; console.run('train', lambda: console.say('train: epoch 1/1'))"


def _run(tmp_path: Path, end: str, **env: str) -> "subprocess.CompletedProcess[str]":
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "ALEXNET_LOG": "json"} | env
    command = [sys.executable, "-c", STAGE.replace("{end}", end)]
    return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)


def _objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_is_an_object_with_run_stage_and_release(tmp_path: Path) -> None:
    done = _run(tmp_path, "raise DataError('a.jpg: truncated')", ALEXNET_RUN="r1")
    out, err = _objects(done.stdout), _objects(done.stderr)
    assert done.returncode == 1
    assert [one["message"] for one in out] == ["validate: one", "validate: two", "without an endpublished"]
    assert [one["message"] for one in err] == ["waits", "validate: error: a.jpg: truncated"]
    assert [one["level"] for one in [*out, *err]] == ["info"] * 4 + ["error"]
    assert [one["release"] for one in out] == [None, None, "alexnet@0123456789abcdef"]
    assert {(one["run"], one["stage"]) for one in [*out, *err]} == {("r1", "validate")}
    assert all(one["time"].endswith("+00:00") for one in out)


def test_a_bug_is_one_object_with_its_traceback(tmp_path: Path) -> None:
    done = _run(tmp_path, "1 / 0")
    (*_, bug) = _objects(done.stderr)
    assert done.returncode == 1
    assert (bug["level"], bug["run"]) == ("error", None)
    assert bug["message"].startswith("Traceback ")
    assert bug["message"].endswith("ZeroDivisionError: division by zero\n")
    assert json.loads((tmp_path / ".local/status/validate.json").read_text())["error"] == "ZeroDivisionError: division by zero"


def test_a_stage_within_another_is_passed_on_as_the_others(tmp_path: Path) -> None:
    """Evaluation trains variants: neither the train stage's status nor what it took is of those."""
    done = _run(
        tmp_path, f"console.say(subprocess.run([sys.executable, '-c', {PART!r}], capture_output=True, text=True).stdout)"
    )
    (*_, said) = _objects(done.stdout)
    assert (said["stage"], said["message"]) == ("validate", "train: epoch 1/1")
    for folder in ("status", "timings"):
        assert [path.name for path in (tmp_path / ".local" / folder).iterdir()] == ["validate.json"]


def test_another_form_is_refused(tmp_path: Path) -> None:
    done = _run(tmp_path, "", ALEXNET_LOG="xml")
    assert done.stderr == "validate: error: ALEXNET_LOG: must be text or json, got 'xml'\n"
    assert done.returncode == 1


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_reader_that_ends_stops_the_stage(tmp_path: Path, form: str) -> None:
    code = "import time\nfrom pipelines.runtime import console\n"
    code += "def main():\n    for _ in range(1000):\n        console.say('x' * 999)\n    time.sleep(60)\n"
    code += "console.run('validate', main)"
    env = os.environ | {"PYTHONPATH": str(Path(__file__).parents[3]), "ALEXNET_LOG": form}
    with subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, env=env, stdout=subprocess.PIPE) as stage:
        assert stage.stdout
        stage.stdout.readline()
        stage.stdout.close()
        assert stage.wait(30) == -15
