"""docs/reliability.md, from cases.yaml, kinds.yaml and the committed results alone.

python -m tests.faults.report
"""

from collections import Counter
from typing import Any

from tests.faults.cases import (
    ROOT,
    Fault,
    Kind,
    Promise,
    named_tests,
    read_cases,
    read_fuzzed,
    read_kinds,
    read_results,
    read_rounds,
    results_of,
)

PAGE = ROOT / "docs" / "reliability.md"
_INTRODUCTION = """# Reliability

What this project promises to survive, and the tests of each promise. The tests really cause the faults: they kill and stop
processes, fill disks, flip bits, cut connections and lose replies. `make test-faults` runs them all and writes this page;
`tests/faults/cases.yaml` says which tests cause which fault. A test with several parameters counts once for each.
"Not tested here" is what needs another machine, such as GPUs.
"""


def current() -> str:
    """The page that the committed results make."""
    promises, kinds, results = read_cases(), read_kinds(), read_results()
    parts = [_INTRODUCTION, _when(results), _overview(promises, results)]
    parts += [_section(promise, results) for promise in promises]
    return "\n".join([*parts, _kinds(kinds, results), _soak(read_rounds()), _fuzz(read_fuzzed())])


def _when(results: dict[str, Any]) -> str:
    if not (dates := sorted({found["date"] for found in results["tests"].values()})):
        return "No test has been run yet.\n"
    when = " to ".join(dict.fromkeys((dates[0], dates[-1])))
    versions = ", ".join(f"{name} {number}" for name, number in sorted(results["versions"].items()))
    return f"Last run: {when}, on {results['cores']} CPU cores, with {versions}.\n"


def _overview(promises: list[Promise], results: dict[str, Any]) -> str:
    lines = ["| | promise | faults | tests | passed |", "|---|---|---|---|---|"]
    for promise in promises:
        found = _counts(named_tests([promise]), results)
        lines.append(
            f"| [{promise.key}](#{promise.key.lower()}) | {promise.text} | {len(promise.faults)} | "
            f"{found.total()} | {_passed(found)} |"
        )
    total = _counts(named_tests(promises), results)
    lines.append(f"| | all | {sum(len(promise.faults) for promise in promises)} | {total.total()} | {_passed(total)} |")
    return "\n".join(lines) + "\n"


def _section(promise: Promise, results: dict[str, Any]) -> str:
    lines = [f"## {promise.key}", "", promise.text, "", "| fault | tests | passed | not tested here |", "|---|---|---|---|"]
    lines += [_row(fault, results) for fault in promise.faults]
    return "\n".join(lines) + "\n"


def _row(fault: Fault, results: dict[str, Any]) -> str:
    found = _counts(fault.tests, results)
    return f"| {fault.name} | {found.total()} | {_passed(found)} | {'. '.join(fault.not_here)} |"


def _kinds(kinds: list[Kind], results: dict[str, Any]) -> str:
    lines = []
    for kind in kinds:
        found, places = _counts(kind.tests, results), ", ".join(f"`{place.replace('::', '` `')}`" for place in kind.code)
        lines.append(f"| {kind.key} | {kind.kind} | {kind.rule} | {places} | {found.total()} | {_passed(found)} |\n")
    return _KINDS + "".join(lines)


def _counts(tests: tuple[str, ...] | list[str], results: dict[str, Any]) -> Counter[str]:
    """How many tests, each with each of its parameters, came to which outcome."""
    counts: Counter[str] = Counter()
    for test in tests:
        found = [result["outcome"] for result in results_of(test, results)]
        counts.update(found or ["not run"])
    return counts


def _passed(found: Counter[str]) -> str:
    others = [f"{count} {outcome}" for outcome, count in sorted(found.items()) if outcome != "passed"]
    return ", ".join([str(found["passed"]), *others])


_KINDS = """## Causes

Trouble that people report of their data and machines (A to F), and attacks and faults (1 to 12), sorted by cause. For each
cause there is one rule that prevents it, in one place in the code; `tests/faults/kinds.yaml` says which tests check it.

| | cause | rule | in the code | tests | passed |
|---|---|---|---|---|---|
"""
_SOAK = """## Soak

`make soak` runs the whole pipeline on sixteen images and causes one fault, at a moment that a seed decides. It repeats the
command until it succeeds, and compares every output with those of an undisturbed run.

{rounds} rounds, {survived} with equal outputs.

| fault | rounds | equal outputs | runs until success |
|---|---|---|---|
"""
_READERS = """## Readers

`make fuzz` gives every reader of outside data damaged files, hostile values and random structures. A reader must accept them
or say what is wrong, within a gigabyte of memory and ten seconds.

| what is read | inputs | accepted | refused with an error | CPU seconds |
|---|---|---|---|---|
"""


def _soak(rounds: list[dict[str, Any]]) -> str:
    lines = []
    for fault in sorted({each["fault"] for each in rounds}):
        found = [each for each in rounds if each["fault"] == fault]
        counts = sorted(Counter(each["attempts"] for each in found).items())
        runs = ", ".join(f"{number} ({count} round{'s' if count > 1 else ''})" for number, count in counts)
        lines.append(f"| {fault} | {len(found)} | {sum(each['survived'] for each in found)} | {runs} |\n")
    return _SOAK.format(rounds=len(rounds), survived=sum(each["survived"] for each in rounds)) + "".join(lines)


def _fuzz(fuzzed: dict[str, Any]) -> str:
    lines = []
    for name, found in fuzzed.items():
        taken, refused = found.get("taken", 0), found.get("refused", 0)
        lines.append(f"| {name} | {taken + refused:,} | {taken:,} | {refused:,} | {found['seconds']} |\n")
    return _READERS + "".join(lines)


def main() -> None:
    """Writes the page."""
    PAGE.write_text(current(), encoding="utf-8")


if __name__ == "__main__":
    main()
