"""The run's page, as far as it is made without a server: rows, messages, what of a line is progress."""

import json
from pathlib import Path
from typing import Any

import pytest

from flows.stage import StageResult


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, imported late: prefect takes seconds. In a folder with a receipt and results."""
    from flows import page

    monkeypatch.chdir(tmp_path)
    interval = {"value": 0.014, "low": 0.009, "high": 0.022}
    results = {
        "protocols": [{"views": "center", "top1_error": interval, "top5_error": interval}],
        "ridge": {"value": 0.1392, "low": 0.1211, "high": 0.1595},
        "majority": {"value": 0.9, "low": 0.8821, "high": 0.9154},
    }
    page.RESULTS.parent.mkdir(parents=True)
    page.RESULTS.write_text(json.dumps(results))
    return page


CHAMPION = {"is_champion": True, "reason": "not worse", "compared_with": "0123", "comparison": None}


def _receipt(page: Any, **changes: object) -> dict[str, Any]:
    receipt: dict[str, Any] = {
        "name": "alexnet",
        "version": "1234",
        "alias": "latest",
        "held_back": None,
        "champion": CHAMPION,
        "files": {"a": "0"},
    }
    page.RECEIPT.write_text(json.dumps(receipt | changes))
    return receipt | changes


def _made(*stages: str) -> list[StageResult]:
    return [StageResult("fetch", "made", 1.0, {}), *(StageResult(stage, "made", 1.0, {}) for stage in stages)]


def test_errors_become_rows_in_percent_with_the_release_before(page: Any) -> None:
    rows = page.error_rows(page._read(page.RESULTS), 0.016)
    assert [row["top-1 error"] for row in rows] == [
        "1.40 (0.90 to 2.20)", "1.60", "13.92 (12.11 to 15.95)", "90.00 (88.21 to 91.54)"
    ]  # fmt: skip
    assert [row["what"] for row in rows] == [
        "center crop", "release before", "baseline: ridge", "baseline: majority"
    ]  # fmt: skip


def test_a_release_that_is_measured_again_has_its_error_in_the_message(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    interval = {"value": 0.016, "low": 0.0104, "high": 0.0246}
    protocols = [
        {"split": "val", "views": views, "top1_error": interval, "top5_error": interval} for views in ("center", "five")
    ]
    shown: dict[str, Any] = {}
    monkeypatch.setattr(page, "create_table_artifact", lambda **given: shown.update(given))
    page.measured("alexnet@latest", protocols)
    assert [row["what"] for row in shown["table"]] == ["center crop", "five crops"]
    assert shown["description"] == "alexnet@latest on the present validation images: errors in percent, 95% intervals"
    assert page.measured_message("alexnet@latest", protocols) == "alexnet@latest: validation top-1 error 1.60 (1.04 to 2.46) %"


def test_the_message_says_what_came_of_the_run(page: Any) -> None:
    _receipt(page)
    assert page.message(_made(), 0.016) == "nothing changed"
    assert page.message([StageResult("train", "from the cache", 1.0, {})], 0.016) == "nothing changed"
    assert page.message(_made("validate"), None) == "made validate"
    assert page.message(_made("train", "publish"), 0.016) == "published 1.6% -> 1.4%, champion"
    assert page.message(_made("train", "publish"), None) == "published 1.4%, champion"
    _receipt(page, champion=CHAMPION | {"is_champion": False, "reason": "worse"})
    assert page.message(_made("publish"), 0.016) == "published 1.6% -> 1.4%, latest, not champion: worse"
    _receipt(page, held_back="worse than ridge", champion=None)
    assert page.message(_made("publish"), 0.016) == "published 1.6% -> 1.4%, held back: worse than ridge"
    _receipt(page, version=None, held_back="an experiment", champion=None)
    assert page.message(_made("publish"), None) == "published nothing: an experiment; top-1 error 1.4%"


def test_a_stage_that_was_made_has_what_it_took(page: Any) -> None:
    timing = {
        "images_per_second": 1234.5,
        "cpu_seconds": 19.96,
        "peak_memory_bytes": 2.1e9,
        "read_bytes": 0,
        "written_bytes": 1.5e6,
    }
    row = page.stage_row(StageResult("train", "made", 1000.04, timing))
    assert list(row.values()) == ["train", "made", "1,000.0", "1,234", "20.0", "2,100", "0.0 / 1.5", ""]
    row = page.stage_row(StageResult("train", "unchanged", 2.0, {}))
    assert list(row.values()) == ["train", "unchanged", "2.0", *[""] * 5]


def test_the_page_says_why_a_network_is_held_back(page: Any) -> None:
    assert page.verdict(_receipt(page)).splitlines() == [
        "**alexnet@1234** is published, 1 files.",
        "",
        "- `alexnet@latest` names it now.",
        "- `alexnet@champion` names it now: not worse",
    ]
    worse = CHAMPION | {"is_champion": False, "reason": "5.0 points worse (4.0 to 6.0)"}
    assert page.verdict(_receipt(page, champion=worse)).splitlines()[3:] == [
        "- `alexnet@champion` **stays** at 0123: 5.0 points worse (4.0 to 6.0)"
    ]
    held = page.verdict(_receipt(page, held_back="top-1 error is 0.5000, not below ridge's", champion=None))
    assert held.splitlines()[2:] == ["**It is held back**, no alias names it: top-1 error is 0.5000, not below ridge's"]
    nothing = page.verdict(_receipt(page, version=None, held_back="a DVC experiment", champion=None))
    assert nothing == "**Nothing is published**: a DVC experiment"


def test_the_champion_stands_beside_the_new_network(page: Any) -> None:
    interval = {"value": 0.014, "low": 0.009, "high": 0.022}
    paired = {"difference": {"value": -0.005, "low": -0.013, "high": 0.003}, "only_first_wrong": 14, "only_second_wrong": 2000}
    compared = {"error": interval, "champion_error": interval | {"value": 0.019}, "paired": paired}
    rows = page.champion_rows(_receipt(page, champion=CHAMPION | {"comparison": compared}))
    assert [tuple(row.values()) for row in rows] == [
        ("alexnet@1234", "1.40 (0.90 to 2.20)"),
        ("champion 0123", "1.90 (0.90 to 2.20)"),
        ("difference", "-0.50 (-1.30 to 0.30)"),
        ("wrong by the new one only", "14"),
        ("wrong by the champion only", "2,000"),
    ]
    assert page.champion_rows(_receipt(page)) == page.champion_rows(_receipt(page, champion=None)) == []


def test_without_a_receipt_the_message_names_the_stages(page: Any) -> None:
    assert page.message(_made("make", "publish"), None) == "made make, publish"


def test_without_a_registry_no_release_is_known(page: Any) -> None:
    assert page.released_error() is None


def test_progress_is_read_from_the_lines_of_training(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[tuple[float, str]] = []
    first = "11111111-1111-1111-1111-111111111111"

    def create(percent: float, key: str, description: str) -> str:
        shown.append((percent, key))
        return first

    monkeypatch.setattr(page, "create_progress_artifact", create)
    monkeypatch.setattr(
        page, "update_progress_artifact", lambda _, progress, description: shown.append((progress, description))
    )
    training = page.Training()
    for line in (
        "train: one-device: one device",
        "train: epoch 1/4, step 5/10, loss 2.3000",
        "train: epoch 2/4: loss 1.2, top-1 error 0.3; validation: loss 1.1",
        "train: epoch 4/4, step 10/10, loss 0.1000, 350 images/s, 0 min left",
    ):
        training.progress(line)
    assert shown == [
        (12.5, "training"),
        (50.0, "epoch 2/4: loss 1.2, top-1 error 0.3; validation: loss 1.1"),
        (100.0, "epoch 4/4, step 10/10, loss 0.1000, 350 images/s, 0 min left"),
    ]


def test_what_cannot_be_shown_is_logged_and_fails_nothing(page: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[tuple[object, ...]] = []

    class Logger:
        def warning(self, *args: object) -> None:
            said.append(args)

    monkeypatch.setattr(page, "get_run_logger", Logger)
    page.RESULTS.unlink()
    page.error_rates(None)
    assert said[0][1] == "error rates"
