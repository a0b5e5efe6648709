"""The list of faults: every test that it names is there, every fault is caused or says why not, and the page is up to date."""

import ast
from functools import cache
from pathlib import Path

from tests.faults import report
from tests.faults.cases import FOLDER, ROOT, named_tests, read_cases, read_kinds

PROMISES, KINDS = read_cases(), read_kinds()


@cache
def _functions(path: Path) -> set[str]:
    """Functions and classes."""
    return {node.name for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, (ast.FunctionDef, ast.ClassDef))}


def test_every_test_that_is_named_is_there() -> None:
    named = [test.split("::") for test in named_tests(PROMISES, KINDS)]
    assert len(named) > 100
    files = {path for path, _ in named}
    assert [path for path in files if not (FOLDER.parent / path).is_file()] == []
    assert [name for path, name in named if name not in _functions(FOLDER.parent / path)] == []


def test_every_fault_is_caused() -> None:
    assert [promise.key for promise in PROMISES] == [f"P{number}" for number in range(1, 12)]
    assert sum(len(promise.faults) for promise in PROMISES) >= 40
    assert [fault.name for promise in PROMISES for fault in promise.faults if not fault.tests] == []


def test_the_rule_of_every_kind_stands_in_the_code_and_is_tried() -> None:
    assert [kind.key for kind in KINDS] == [*"ABCDEF", *map(str, range(1, 13))]
    places = [place.partition("::") for kind in KINDS for place in kind.code]
    assert [path for path, _, _ in places if not (ROOT / path).is_file()] == []
    assert [name for path, _, name in places if name and name not in _functions(ROOT / path)] == []


def test_every_test_of_this_folder_is_named() -> None:
    named = set(named_tests(PROMISES))
    found = {
        f"faults/{path.name}::{name}"
        for path in FOLDER.glob("test_*.py")
        for name in _functions(path)
        if name.startswith("test_") and path.name != Path(__file__).name
    }
    assert found <= named


def test_the_page_says_what_the_results_hold() -> None:
    assert report.PAGE.read_text() == report.current()
