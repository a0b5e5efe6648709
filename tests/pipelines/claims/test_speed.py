"""Epochs until a training error, by each side's best rate."""

from pathlib import Path

import numpy as np
import pytest

from pipelines.claims import cells, compare, mapping, speed, table
from pipelines.claims.cells import Recipes
from tests.pipelines.claims.test_cells import ROOT, result

MAPPING = """
claims:
  speed:
    {says: Sooner, section: "1", base: {variant: no-dropout}, other: {variant: tanh-no-dropout}, until_train_error: 0.25}
  other: {says: Not for this scale, section: "4", other: {variant: no-lrn}}
scales:
  race:
    about: Two rates.
    preset: digits
    seeds: 2
    many: five
    judged_shards: null
    claims: [speed]
    rates: {no-dropout: [0.001, 0.004], tanh-no-dropout: [0.004, 0.016]}
    params: {}
"""
# Training errors by rate; both are soonest at their lower rate.
ERRORS = {"no-dropout": ((0.5, 0.0), (0.8, 0.5, 0.0)), "tanh-no-dropout": ((0.9, 0.8, 0.7, 0.0), (0.9, 0.75, 0.5, 0.25, 0.0))}


def test_every_side_gets_its_own_best_rate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("params.yaml", "presets"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    Path("claims").mkdir()
    mapping.FILE.write_text(MAPPING)
    whole = mapping.read()
    recipes = Recipes(whole.scale("race"))
    planned = cells.plan(whole, recipes.scale, recipes)
    assert [cell.name for cell in planned][:2] == ["no-dropout-lr0.001-1", "no-dropout-lr0.004-1"]
    assert len(planned) == 8
    for cell in planned:
        schedule = recipes.params(cell)["train"]["schedule"]
        assert (schedule["weights"], schedule["biases"][0]["lr"]) == ([{"epoch": 0, "lr": cell.rate}], 2 * (cell.rate or 0))
        late = 0.01 * cell.seeds[0]
        errors = tuple(each + late for each in ERRORS[cell.variant][recipes.scale.rates[cell.variant].index(cell.rate or 0)])
        result(cell.seeds[0], np.zeros(8, bool), cell.variant, errors=errors).write(cells.path_of("race", cell))
    assert len({recipes.digest(cell) for cell in planned}) == 8
    side = whole.claims["speed"].base
    assert speed.best_rate("race", side, recipes, 0.25) == 0.001
    found = compare.compare("race", whole, recipes)
    (row,) = found.rows
    assert row.outcome is not None
    assert [each.rate for each in row.outcome.curves] == [0.001, 0.004]
    text = table.markdown(found)
    assert "compared (no-dropout: 0.001, 0.004; tanh-no-dropout: 0.004, 0.016)" in text
    assert "epochs until 25%: 1.53 at rate 0.001, " in text
    table.write(found)
    assert Path("claims/race.png").stat().st_size > 1000


@pytest.mark.parametrize(
    ("errors", "epochs"), [((0.9, 0.5, 0.0), 2.5), ((0.2,), 1.0), ((0.9, 0.25), 2.0), ((0.9, 0.3), None), ((), None)]
)
def test_epochs_until_a_training_error_are_read_off_a_line(errors: tuple[float, ...], epochs: float | None) -> None:
    assert speed.epochs_until(errors, 0.25) == epochs
