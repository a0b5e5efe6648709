"""The table of claims for people."""

import json
from pathlib import Path

from pipelines.claims import compare
from pipelines.claims import table as tables


def test_the_table_is_written_for_people_and_for_programs(table: compare.Table) -> None:
    tables.write(table)
    text = Path("claims/tiny.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == 4
    assert {line.count("|") for line in rows} == {9}
    assert "| It helps (1) | 2 | - | +" in text
    assert "| 1.37 / 1.15 |" in text
    assert "6 times" in text
    assert "| not measured yet |" in text
    assert "all 3 measured claims" in text
    assert "Small, by a factor." in text
    whole = json.loads(Path("claims/tiny.json").read_text())
    assert [row["name"] for row in whole["rows"]] == ["helps", "nothing", "speed", "missing"]
    assert Path("claims/tiny.png").stat().st_size > 1000
