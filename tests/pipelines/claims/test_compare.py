"""The table of claims, from result files with known effects."""

import json
from pathlib import Path

import numpy as np
import pytest

from alexnet.errors import DataError
from pipelines.claims import cells, compare, mapping
from pipelines.claims.cells import Recipes
from tests.pipelines.claims.test_cells import ROOT, result

IMAGES = 2000
MAPPING = """
claims:
  helps: {says: It helps, section: "1", other: {variant: tanh}, paper: {top1: 2.0}}
  nothing: {says: It does nothing, section: "2", other: {variant: no-lrn}, log: {top1: 1.37, top5: 1.15, runs: a against b}}
  speed: {says: It is sooner there, section: "3", other: {variant: no-dropout}, until_train_error: 0.25, paper: {times: 6.0}}
  missing: {says: Not run, section: "4", other: {variant: no-conv4}}
scales:
  tiny: {about: "Small, by a factor.", preset: digits, seeds: 4, many: five, judged_shards: null, params: {}}
"""


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> compare.Table:
    """Four seeds: 5% of the images wrong by the base, 9% by tanh, 5% by no-lrn; without dropout half as fast."""
    for name in ("params.yaml", "presets"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    Path("claims").mkdir()
    mapping.FILE.write_text(MAPPING)
    random = np.random.default_rng(0)
    for seed in range(1, 5):
        for variant, rate, errors in (
            ("base", 0.05, (0.75, 0.5, 0.0)),
            ("tanh", 0.09, ()),
            ("no-lrn", 0.05, ()),
            ("no-dropout", 0.05, (0.9, 0.8, 0.65, 0.5, 0.25 + 0.01 * seed, 0.2)),
        ):
            wrong = random.random(IMAGES) < rate
            result(seed, wrong, variant, errors=errors).write(cells.RESULTS / "tiny" / f"{variant}-{seed}.json")
    whole = mapping.read()
    return compare.compare("tiny", whole, Recipes(whole.scale("tiny")))


def test_a_planted_effect_gets_its_word_and_none_gets_none(table: compare.Table) -> None:
    found = {row.name: row.outcome for row in table.rows}
    helps, nothing, speed = found["helps"], found["nothing"], found["speed"]
    assert helps is not None
    assert (helps.verdict, helps.images) == ("supported", IMAGES)
    assert helps.top1.low < 0.04 < helps.top1.high
    assert helps.seeds_needed is not None
    assert nothing is not None
    assert nothing.verdict == "not resolved"
    assert nothing.corrected_p >= nothing.top1.p_value
    assert speed is not None
    assert np.exp(speed.top1.value) == pytest.approx(5.3 / 2.5, abs=0.2)
    assert found["missing"] is None
    assert table.hours == pytest.approx(16 * 60 / 3600, abs=0.006)


def test_the_table_is_written_for_people_and_for_programs(table: compare.Table) -> None:
    compare.write(table)
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


def test_a_scale_without_results_is_refused(table: compare.Table) -> None:
    whole = mapping.read()
    with pytest.raises(
        DataError, match="claims/results/none: holds both sides of no claim; `alexnet claims --scale none` makes"
    ):
        compare.compare("none", whole, Recipes(whole.scale("tiny")))


@pytest.mark.parametrize(
    ("errors", "epochs"), [((0.9, 0.5, 0.0), 2.5), ((0.2,), 1.0), ((0.9, 0.25), 2.0), ((0.9, 0.3), None), ((), None)]
)
def test_epochs_until_a_training_error_are_read_off_a_line(errors: tuple[float, ...], epochs: float | None) -> None:
    assert compare.epochs_until(errors, 0.25) == epochs
