"""The faults of cases.yaml, the kinds of kinds.yaml, and what came of the tests that cause them: results/tests.json."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
RESULTS = FOLDER / "results"
TESTS, SOAK, FUZZ = RESULTS / "tests.json", RESULTS / "soak.jsonl", RESULTS / "fuzz.json"


@dataclass(frozen=True)
class Fault:
    """What happens, the tests that cause it, as PATH::NAME under tests/, and what of it cannot happen on this machine."""

    name: str
    tests: tuple[str, ...]
    not_here: tuple[str, ...]


@dataclass(frozen=True)
class Promise:
    """A sentence that holds whatever fault of these occurs."""

    key: str
    text: str
    faults: tuple[Fault, ...]


@dataclass(frozen=True)
class Kind:
    """Cases of one cause, the rule that ends them, where it stands as PATH::NAME, and the tests that try it as of a Fault."""

    key: str
    kind: str
    rule: str
    code: tuple[str, ...]
    tests: tuple[str, ...]


def read_cases() -> list[Promise]:
    """Every promise with its faults."""
    tree = yaml.safe_load((FOLDER / "cases.yaml").read_text(encoding="utf-8"))
    return [
        Promise(key, given["promise"], tuple(_fault(name, entries) for name, entries in given["faults"].items()))
        for key, given in tree.items()
    ]


def read_kinds() -> list[Kind]:
    """Every kind of trouble."""
    tree = yaml.safe_load((FOLDER / "kinds.yaml").read_text(encoding="utf-8"))
    return [Kind(key, given["kind"], given["rule"], tuple(given["code"]), tuple(given["tests"])) for key, given in tree.items()]


def _fault(name: str, entries: list[Any]) -> Fault:
    tests = tuple(entry for entry in entries if isinstance(entry, str))
    return Fault(name, tests, tuple(entry["not here"] for entry in entries if not isinstance(entry, str)))


def named_tests(promises: list[Promise], kinds: Sequence[Kind] = ()) -> list[str]:
    """Every test once, in the order of the files."""
    found = [test for promise in promises for fault in promise.faults for test in fault.tests]
    return list(dict.fromkeys([*found, *(test for kind in kinds for test in kind.tests)]))


def read_results() -> dict[str, Any]:
    """The versions that the tests ran with, and for every test with its parameters: outcome, seconds, date."""
    if TESTS.exists():
        return dict(json.loads(TESTS.read_text(encoding="utf-8")))
    return {"versions": {}, "cores": 0, "tests": {}}


def read_rounds() -> list[dict[str, Any]]:
    """Every round of the soak."""
    return [json.loads(line) for line in SOAK.read_text(encoding="utf-8").splitlines()] if SOAK.exists() else []


def read_fuzzed() -> dict[str, Any]:
    """What came of the bodies that every reader was given."""
    return dict(json.loads(FUZZ.read_text(encoding="utf-8"))) if FUZZ.exists() else {}


def results_of(test: str, results: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What came of a test, for each of its parameters."""
    for name, result in results["tests"].items():
        if name.partition("[")[0] == test:
            yield result
