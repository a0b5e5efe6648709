"""Trees of parameters: read from YAML, laid over one another; every mistake named with its path."""

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet.errors import ParamsError
from pipelines.config import tree


def test_an_overlay_adds_nothing() -> None:
    with pytest.raises(
        ParamsError, match="variants.no-lrn.inner: changes lnr, which the base does not have; it has size, rate"
    ):
        tree.overlay({"inner": {"size": 3, "rate": 1}}, {"inner": {"lnr": 1}}, "variants.no-lrn")


TREES = st.recursive(
    st.integers() | st.text(max_size=3), lambda kids: st.dictionaries(st.sampled_from("abc"), kids, min_size=1), max_leaves=8
)


@given(st.dictionaries(st.sampled_from("abc"), TREES, min_size=1))
def test_an_overlay_of_itself_is_neutral_and_of_nothing_too(base: dict[str, Any]) -> None:
    assert tree.overlay(base, base, "p") == base
    assert tree.overlay(base, {}, "p") == base


@given(st.data())
def test_overlaying_twice_is_overlaying_once(data: st.DataObject) -> None:
    base = data.draw(st.dictionaries(st.sampled_from("abc"), TREES, min_size=1))
    change = {name: data.draw(st.integers()) for name in data.draw(st.sets(st.sampled_from(sorted(base))))}
    once = tree.overlay(base, change, "p")
    assert tree.overlay(once, change, "p") == once


def test_files_are_yaml_1_2(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("rate: 1e-4\nword: no\n")
    assert tree.read(tmp_path / "p.yaml") == {"rate": 0.0001, "word": "no"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1", "must hold a mapping, got"),
        ("a: 1\na: 2\n", "not valid YAML: .*duplicate key"),
        ("a: " + "[" * 3000 + "]" * 3000, "is nested too deeply"),
        ("[" * 20_000, "is nested too deeply"),
        ("a: " + "9" * 5000, "not valid YAML: Exceeds the limit"),
        ("a: &a\n  b: *a", r"its aliases \(\*NAME\) repeat more than 100,000 values; write them out"),
        ("\n".join(["a0: &a0 [x]", *(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 25))]), "its aliases"),
        ("a: " + "x" * (2 << 20), r".*has 2,097,155 bytes; at most 1,048,576 are read"),
    ],
)
def test_what_is_no_tree_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ParamsError, match=rf"p\.yaml: {message}"):
        tree.read(tmp_path / "p.yaml")


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file; run from the folder that holds"):
        tree.read(tmp_path / "params.yaml")


def test_a_pipe_is_no_file_of_parameters(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "p.yaml")
    with pytest.raises(ParamsError, match="is a pipe, a device or a socket; give a regular file"):
        tree.read(tmp_path / "p.yaml")
