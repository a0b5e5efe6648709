"""Trees of parameters: read strictly, laid over one another; every mistake named with its path."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alexnet.errors import ParamsError
from pipelines.config import tree


@dataclass(frozen=True)
class Inner:
    size: int
    rate: float
    kind: Literal["a", "b", 1]

    def __post_init__(self) -> None:
        if self.size % 2 == 0:
            raise ValueError(f"size: must be odd, got {self.size}")


@dataclass(frozen=True)
class Outer:
    name: str
    on: bool
    inner: Inner
    several: tuple[int, ...]
    by_name: dict[str, float]
    perhaps: float | None


GOOD: dict[str, Any] = {
    "name": "x",
    "on": True,
    "inner": {"size": 3, "rate": 1, "kind": "a"},
    "several": [1, 2],
    "by_name": {"a": 0.5},
    "perhaps": None,
}


def test_a_whole_tree_becomes_frozen_dataclasses() -> None:
    assert tree.build(Outer, GOOD, "p") == Outer("x", True, Inner(3, 1.0, "a"), (1, 2), {"a": 0.5}, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"nmae": 1}, "p: unknown nmae; allowed: name, on, inner, several, by_name, perhaps"),
        ({"name": 5}, "p.name: must be text, got 5"),
        ({"on": 1}, "p.on: must be true or false, got 1"),
        ({"inner": {"size": "3", "rate": 1, "kind": "a"}}, "p.inner.size: must be a whole number, got '3'"),
        ({"inner": {"size": True, "rate": 1, "kind": "a"}}, "p.inner.size: must be a whole number, got True"),
        ({"inner": {"size": 3, "rate": "1", "kind": "a"}}, "p.inner.rate: must be a number, got '1'"),
        ({"inner": {"size": 3, "rate": 1, "kind": "c"}}, "p.inner.kind: must be one of a, b, 1, got 'c'"),
        ({"inner": {"size": 3, "rate": 1, "kind": True}}, "p.inner.kind: must be one of a, b, 1, got True"),
        ({"inner": {"size": 2, "rate": 1, "kind": "a"}}, "p.inner.size: must be odd, got 2"),
        ({"inner": {"size": 3}}, "p.inner: missing rate, kind"),
        ({"inner": [3]}, "p.inner: must be a mapping, got [3]"),
        ({"several": 1}, "p.several: must be a list, got 1"),
        ({"several": [1, 2.5]}, "p.several[1]: must be a whole number, got 2.5"),
        ({"by_name": {"a": "b"}}, "p.by_name.a: must be a number, got 'b'"),
        ({"by_name": 3}, "p.by_name: must be a mapping, got 3"),
        ({"perhaps": "no"}, "p.perhaps: must be a number, got 'no'"),
    ],
)
def test_a_mistake_is_named_with_its_path(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError) as error:
        tree.build(Outer, GOOD | change, "p")
    assert str(error.value) == message


def test_leaves_of_the_file_go_by_their_own_path() -> None:
    with pytest.raises(ParamsError, match=r"^inner\.size: must be odd"):
        tree.build(Outer, GOOD | {"inner": {"size": 2, "rate": 1, "kind": "a"}}, "params.yaml")


def test_an_overlay_adds_nothing() -> None:
    with pytest.raises(
        ParamsError, match="variants.no-lrn.inner: changes lnr, which the base does not have; it has size, rate, kind"
    ):
        tree.overlay(GOOD, {"inner": {"lnr": 1}}, "variants.no-lrn")


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
    ],
)
def test_what_is_no_tree_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(ParamsError, match=rf"p\.yaml: {message}"):
        tree.read(tmp_path / "p.yaml")


def test_a_missing_file_says_where_to_run(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="no such file; run from the folder that holds"):
        tree.read(tmp_path / "params.yaml")
