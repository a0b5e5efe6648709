"""The topological order of the stages of dvc.yaml."""

from pathlib import Path

import pytest

from flows.dag import stages_for


def _file(tmp_path: Path, text: str) -> Path:
    (tmp_path / "dvc.yaml").write_text(text)
    return tmp_path / "dvc.yaml"


FILE = """
stages:
  last: {cmd: x, deps: [b/inside], outs: [c]}
  middle: {cmd: x, deps: [a, code.py], outs: [{b: {persist: true}}]}
  first: {cmd: x, outs: [a]}
  beside: {cmd: x, deps: [c], outs: [d]}
"""


def test_a_stage_comes_after_its_dependencies_and_unrelated_stages_are_left_out(tmp_path: Path) -> None:
    assert stages_for("last", _file(tmp_path, FILE)) == ["first", "middle", "last"]


def test_an_unknown_stage_is_reported_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no stage 'lasst'; it has last, middle, first, beside"):
        stages_for("lasst", _file(tmp_path, FILE))


def test_a_cycle_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="depend on one another in a cycle: "):
        stages_for("a", _file(tmp_path, "stages: {a: {cmd: x, deps: [y], outs: [x]}, b: {cmd: x, deps: [x], outs: [y]}}"))
