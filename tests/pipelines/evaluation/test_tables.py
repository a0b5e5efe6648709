"""The tables of an evaluation."""

import csv
from pathlib import Path

import pytest

from pipelines.evaluation import tables
from pipelines.evaluation.predictions import Predictions
from tests.pipelines.evaluation.conftest import SYNSETS


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_every_table_says_what_the_predictions_say(tmp_path: Path, predictions: Predictions) -> None:
    tables.write_all(tmp_path, predictions, SYNSETS)
    by_class = rows(tmp_path / "per_class.csv")
    assert [(row["name"], row["images"], row["center_top1_error"], row["five_top1_error"]) for row in by_class] == [
        ("class 0", "2", "0.5", "0.0"),
        ("class 1", "2", "0.5", "0.0"),
        ("class 2", "0", "nan", "nan"),
    ]
    assert [tuple(row.values()) for row in rows(tmp_path / "confusion.csv")] == [
        ("class 0", "class 2"),
        ("class 0", "class 0"),
        ("class 1", "class 1"),
        ("class 1", "class 0"),
    ]
    curve = [row for row in rows(tmp_path / "calibration.csv") if row["views"] == "center" and row["images"] != "0"]
    assert [float(row["accuracy"]) for row in curve] == [1, 0, 1, 0]
    assert all(float(row["from"]) < float(row["confidence"]) <= float(row["to"]) for row in curve)
    mistakes = rows(tmp_path / "mistakes.csv")
    assert [(row["key"], row["name"], row["predicted"]) for row in mistakes] == [
        ("d", "class 1", "class 0"),
        ("a", "class 0", "class 2"),
    ]
    assert [float(row["predicted_probability"]) for row in mistakes] == pytest.approx([0.9, 0.6])
    assert [float(row["probability"]) for row in mistakes] == pytest.approx([0.1, 0.3])


def test_curves_count_epochs_from_one_and_have_the_baselines_beside_them(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,step,val_top1_error\n0,3,0.5\n1,6,0.25\n")
    tables.write_curves(tmp_path / "curves.csv", tmp_path / "history.csv", {"ridge": 0.125, "majority": 0.9})
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines == ["epoch,step,val_top1_error,ridge,majority", "1,3,0.5,0.125,0.9", "2,6,0.25,0.125,0.9"]


@pytest.mark.parametrize("name", ["=1+1", "+1", "-x", "@SUM(1)", "\t=1", "'quoted", "plain", "a=b", "猫", ""])
def test_a_name_is_no_formula_in_a_spreadsheet(name: str) -> None:
    cell = tables.as_text(name)
    assert isinstance(cell, str)
    assert not cell.startswith(("=", "+", "-", "@", "\t"))
    assert cell.removeprefix("'") == name  # as the card reads it
    assert tables.as_text(-1.5) == -1.5
