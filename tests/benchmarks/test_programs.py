"""The programs that no machine has run for long leave what the tables read, be it of one round."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from benchmarks import report, timing


@pytest.mark.slow
@pytest.mark.parametrize("name", ["validate", "extract", "registry", "commands"])
def test_one_round_has_every_ratio_of_the_tables(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", [name, "--rounds", "1"])
    importlib.import_module(f"benchmarks.{name}").main()
    (file,) = tmp_path.iterdir()
    rows = [row for row in report.ROWS if row.result == name]
    assert rows
    assert all(0 < row.ratio(json.loads(file.read_text())) < 1e6 for row in rows)
