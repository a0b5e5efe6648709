"""What `make run` says and writes by DVC."""

import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

DVC = """
stages:
  look: {cmd: cat source > seen, always_changed: true, outs: [seen: {persist: true}]}
  make: {cmd: cat seen > made, deps: [seen], outs: [made]}
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with an empty folder of DVC's in a repository of git."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    Path(".dvc/tmp").mkdir(parents=True)
    Path(".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    Path("dvc.yaml").write_text(DVC)
    return tmp_path


def _repro() -> tuple[int, str]:
    done = subprocess.run([sys.executable, "-m", "infra.repro"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.returncode, done.stdout


def test_it_runs_what_has_changed_gives_no_advice_and_writes_the_lock_only_then(repository: Path) -> None:
    Path("source").write_text("1")
    status, said = _repro()
    assert (status, said.count("Running stage")) == (0, 2)
    assert "git add" not in said
    assert "dvc push" not in said
    before = Path("dvc.lock").stat()
    status, said = _repro()
    assert (status, said.count("Running stage 'look'"), said.count("Running stage")) == (0, 1, 1)
    assert Path("dvc.lock").stat().st_mtime_ns == before.st_mtime_ns
    Path("source").write_text("2")
    assert "Running stage 'make'" in _repro()[1]
    assert Path("made").read_text() == "2"
    plain = subprocess.run([sys.executable, "-m", "dvc", "status", "make"], capture_output=True, text=True)
    assert "up to date" in plain.stdout


def test_a_parameter_that_a_stage_changes_is_read_again(repository: Path) -> None:
    """DVC's own reader opens params.yaml for every stage; this one parses it once a text."""
    Path("params.yaml").write_text("a: 1\nb: 1\n")
    write = "sed -i 's/b: 1/b: 2/' params.yaml && touch first"
    Path("dvc.yaml").write_text(
        f'stages:\n  first: {{cmd: "{write}", params: [a], outs: [first]}}\n'
        "  second: {cmd: cp params.yaml second, deps: [first], params: [b], outs: [second]}\n"
    )
    assert _repro()[0] == 0
    lock = YAML(typ="safe").load(Path("dvc.lock"))["stages"]
    assert [lock[stage]["params"]["params.yaml"] for stage in ("first", "second")] == [{"a": 1}, {"b": 2}]
    assert "Running" not in _repro()[1]


def test_a_stage_that_fails_is_named(repository: Path) -> None:
    status, said = _repro()
    assert status == 255
    assert "failed to reproduce 'look'" in said
    assert "Traceback" not in said
