"""The strict reader: frozen dataclasses from plain trees and JSON files; every mistake is named with its path."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytest

from alexnet.config import build, first_difference, read_json, to_json
from alexnet.errors import DataError, ParamsError


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
    assert build(Outer, GOOD, "p") == Outer("x", True, Inner(3, 1.0, "a"), (1, 2), {"a": 0.5}, None)


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
        build(Outer, GOOD | change, "p")
    assert str(error.value) == message


def test_leaves_of_the_file_go_by_their_own_path() -> None:
    with pytest.raises(ParamsError, match=r"^inner\.size: must be odd"):
        build(Outer, GOOD | {"inner": {"size": 2, "rate": 1, "kind": "a"}}, "params.yaml")


def test_what_is_written_as_json_reads_back_and_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    value = Inner(3, 0.1, "b")
    (tmp_path / "inner.json").write_bytes(to_json(value))
    assert read_json(Inner, tmp_path / "inner.json", "make it again") == value
    assert to_json(value) == b'{\n "kind": "b",\n "rate": 0.1,\n "size": 3\n}\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, r"inner\.json: No such file or directory; make it again"),
        ("{", r"inner\.json: damaged: .*; make it again"),
        ("\xff", r"inner\.json: damaged: .*; make it again"),
        (json.dumps({"size": 3, "rate": 1}), r"inner\.json: missing kind; make it again"),
        (
            json.dumps({"size": "3", "rate": 1, "kind": "a"}),
            r"inner\.json\.size: must be a whole number, got '3'; make it again",
        ),
    ],
)
def test_a_file_that_is_not_of_the_form_is_named_with_what_to_do(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "inner.json").write_text(text, encoding="latin-1")
    with pytest.raises(DataError, match=message):
        read_json(Inner, tmp_path / "inner.json", "make it again")


def test_the_first_difference_of_two_trees_is_named_by_its_path() -> None:
    assert first_difference({"a": 1, "b": {"c": [2]}}, {"a": 1, "b": {"c": [2]}}) is None
    assert first_difference({"b": {"d": 1, "c": 2}, "e": 0}, {"b": {"d": 9, "c": 3}, "e": 1}) == ("b.c", 2, 3)
    assert first_difference({"a": {"b": 1}}, {}) == ("a", {"b": 1}, None)


def test_no_error_is_as_long_as_what_it_shows() -> None:
    @dataclass(frozen=True)
    class Name:
        name: str

        def __post_init__(self) -> None:
            raise ValueError(f"name: is none, got {self.name!r}")

    for kind, tree in ((Name, {"name": "9" * 5000}), (Outer, GOOD | {"by_name": {"9" * 5000 + "\x1b": "x"}})):
        with pytest.raises(ParamsError) as found:
            build(kind, tree, "here")
        assert len(str(found.value)) < 1100
        assert str(found.value).isprintable()
