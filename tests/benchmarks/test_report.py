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


def test_results_of_a_checkout_without_the_other_loaders_and_of_another_h200_are_described() -> None:
    """What the programs write now: without `ours-whole`, and without what was measured by hand."""
    found = copy.deepcopy(RESULTS)
    del found["input"]["one_worker"]["loaders"]["ours-whole"]
    steps = found["train_step-nvidia-h200"]
    steps["rows"] = [row for row in steps["rows"] if row["batch"] == 256]
    del steps["towers_apart_images_per_second"], found["train_epoch-nvidia-h200"]["host_ms_per_step"]
    page = report.documents(found)
    assert "measured were 21,803 at batch 256." in page[report.PAGE]["h200"]
    assert "21,803 images/s (`train_step-nvidia-h200`, batch 256)" in page[report.OPERATIONS]["imagenet"]


def test_every_row_has_a_ratio() -> None:
    assert report.measured(RESULTS) == report.ROWS
    assert all(0.01 < row.ratio(RESULTS[row.result]) < 100 for row in report.ROWS)


def test_a_peer_that_was_not_installed_has_no_row() -> None:
    found = copy.deepcopy(RESULTS)
    del found["input"]["two_workers"]["loaders"]["ffcv"]
    del found["store"]
    store = {"boto3's download_file, verifying nothing", "boto3's get_object, verifying nothing"}
    assert {row.peer for row in report.ROWS if row not in report.measured(found)} == {"FFCV"} | store


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
