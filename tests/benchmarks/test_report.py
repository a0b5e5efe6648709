"""What documents say of the benchmarks is what the committed results hold."""

import copy
import re

import pytest

from benchmarks import report, timing
from tools.blocks import with_block

RESULTS = report.read_results()


def test_the_documents_say_what_the_results_hold() -> None:
    for path, blocks in report.documents(RESULTS).items():
        for name, text in blocks.items():
            assert path.read_text() == with_block(path.read_text(), name, text), (
                f"{path.name}: run `python -m benchmarks.report`"
            )


def test_every_row_has_a_ratio() -> None:
    assert report.measured(RESULTS) == report.ROWS
    assert all(0.01 < row.ratio(RESULTS[row.result]) < 100 for row in report.ROWS)


def test_a_peer_that_was_not_installed_has_no_row() -> None:
    found = copy.deepcopy(RESULTS)
    del found["input"]["two_workers"]["loaders"]["ffcv"]
    del found["store"]
    assert {row.peer for row in report.ROWS if row not in report.measured(found)} == {"FFCV", "boto3, verifying nothing"}


def test_a_ratio_is_one_number_over_another() -> None:
    row = report.Row("store", "", "", "a.1.x y", "b", in_readme=False)
    assert row.ratio({"a": [0, {"x y": 6}], "b": 4}) == 1.5


def test_every_program_that_writes_a_result_has_a_row() -> None:
    programs = {path.stem for path in timing.RESULTS.parent.glob("*.py") if "timing.write(" in path.read_text()} - {"timing"}
    assert programs == {row.result.partition("-")[0] for row in report.ROWS} | {"train_epoch"}
    assert set(re.findall(r"^\| `(\w+)` \| [a-z]", report.PAGE.read_text(), re.MULTILINE)) == programs


def test_a_document_without_the_marks_is_named() -> None:
    with pytest.raises(ValueError, match="the marks of benchmarks stand 0 times"):
        with_block("# Title\n", "benchmarks", "text")
