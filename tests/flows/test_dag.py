"""The order of the stages, from dvc.yaml alone."""

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


def test_a_stage_comes_after_all_that_it_needs_and_others_not_at_all(tmp_path: Path) -> None:
    assert stages_for("last", _file(tmp_path, FILE)) == ["first", "middle", "last"]


def test_an_unknown_stage_is_named_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no stage 'lasst'; it has last, middle, first, beside"):
        stages_for("lasst", _file(tmp_path, FILE))


def test_stages_that_need_one_another_are_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="need one another: "):
        stages_for("a", _file(tmp_path, "stages: {a: {cmd: x, deps: [y], outs: [x]}, b: {cmd: x, deps: [x], outs: [y]}}"))
