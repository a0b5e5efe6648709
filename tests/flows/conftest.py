"""A small pipeline of its own for every test of a flow, and a Prefect home that is not the user's."""

import os
import subprocess
from pathlib import Path

import pytest

# One import of prefect reads its settings for good.
for _name in [name for name in os.environ if name.startswith("PREFECT_")]:
    del os.environ[_name]

DVC = """
stages:
  make:
    cmd: python make.py
    deps: [make.py, input.txt]
    outs: [made.txt]
  publish:
    cmd: python publish.py
    deps: [publish.py, made.txt]
    outs: [receipt.txt]
"""
MAKE = """
import pathlib
print("making", flush=True)
timings = pathlib.Path(".local/timings")
timings.mkdir(parents=True, exist_ok=True)
(timings / "make.json").write_text('{"images_per_second": 20.5}')
pathlib.Path("made.txt").write_text(pathlib.Path("input.txt").read_text())
"""
PUBLISH = """
import pathlib
print("publishing", flush=True)
pathlib.Path("receipt.txt").write_text("ok")
"""


@pytest.fixture
def pipeline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two stages, make and publish; the current one for the rest of the test."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    for name, text in (("dvc.yaml", DVC), ("make.py", MAKE), ("publish.py", PUBLISH), ("input.txt", "1")):
        (tmp_path / name).write_text(text)
    return tmp_path
