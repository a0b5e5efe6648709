"""Cells, their recipes and their result files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.errors import DataError
from alexnet.shards.manifest import Manifest, Shard
from pipelines.claims import cells, mapping
from pipelines.claims.cells import Cell, Judged, Recipes, Result
from pipelines.claims.mapping import Side

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def recipes() -> Recipes:
    """Of the smoke scale."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        return Recipes(mapping.read().scale("smoke"))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def judged(wrong: Any) -> Judged:
    """Of two classes; labels are 0."""
    probabilities = np.stack([1.0 - wrong, wrong], 1).astype(np.float32)
    return cells.judge(probabilities, np.zeros(len(wrong), np.int64))


def result(seed: int, wrong: Any, variant: str = "base", data: str = "same", errors: tuple[float, ...] = ()) -> Result:
    """Judged by the center crop."""
    return Result(variant, (seed,), "recipe", data, len(wrong), errors, {"center": judged(wrong)}, 60.0, "a machine")


def test_a_variant_that_changes_nothing_at_this_scale_is_the_base(recipes: Recipes) -> None:
    assert recipes.cell(Side("no-color-noise", "center", 1), 2) == Cell((2,), "base")
    tanh = recipes.cell(Side("tanh-no-dropout", "center", 1), 2)
    assert tanh.name == "tanh-no-dropout-2"
    tree = recipes.params(tanh)
    assert (tree["seed"], tree["model"]["nonlinearity"], tree["model"]["units"]) == (2, "tanh", 32)


def test_a_digest_is_of_what_decides_the_result(recipes: Recipes) -> None:
    one, two = Cell((1,), "base"), Cell((2,), "base")
    assert recipes.digest(one) == recipes.digest(one) != recipes.digest(two)
    before = recipes.digest(one)
    recipes.params(one)["publish"]["alias"] = "other"
    assert recipes.digest(one) == before
    recipes.params(one)["train"]["epochs"] += 1
    assert recipes.digest(one) != before
    recipes.params(one)["train"]["epochs"] -= 1


def test_parameters_that_came_later_leave_results_valid_as_long_as_they_change_nothing(recipes: Recipes) -> None:
    cell = Cell((1,), "base")
    source, before = recipes.params(cell)["source"], recipes.digest(cell)
    assert source.pop("ignore") == []
    assert recipes.digest(cell) == before
    source["ignore"] = ["raw"]
    assert recipes.digest(cell) != before
    source["ignore"] = []


def test_committed_results_are_of_todays_recipes() -> None:
    whole = mapping.read()
    for name, scale in whole.scales.items():
        of = Recipes(scale)
        for cell in cells.plan(whole, scale, of):
            if (path := cells.path_of(name, cell)).exists():
                assert cells.read(path).recipe == of.digest(cell), path


def test_the_plan_has_every_cell_once_and_first_the_first_seed(recipes: Recipes) -> None:
    whole = mapping.read()
    planned = list(cells.plan(whole, recipes.scale, recipes))
    assert len({cell.name for cell in planned}) == len(planned)
    seeds = [cell.seeds[0] % 100 if cell.seeds[0] < 100 else cell.seeds[0] // 100 for cell in planned]
    assert seeds == sorted(seeds)
    for cell in planned:
        assert all(planned.index(member) <= planned.index(cell) for member in cell.members)
    assert Cell((1, 101, 102, 103, 104), "base") in planned


def test_images_whose_class_is_not_among_the_first_are_wrong() -> None:
    random = np.random.default_rng(0)
    probabilities = random.random((50, 8)).astype(np.float32)
    labels = random.integers(0, 8, 50)
    found = cells.judge(probabilities, labels)
    order = np.argsort(-probabilities, axis=1)
    top1, top5 = found.wrong(50)
    assert np.array_equal(top1, order[:, 0] != labels)
    assert np.array_equal(top5, ~(order[:, :5] == labels[:, None]).any(1))
    assert (found.top1_error, found.top5_error) == pytest.approx((top1.mean(), top5.mean()))


def test_of_equal_classes_the_lower_label_comes_first() -> None:
    found = cells.judge(np.full((8, 8), 0.125, np.float32), np.arange(8))
    assert np.array_equal(found.wrong(8)[0], np.arange(8) > 0)
    assert np.array_equal(found.wrong(8)[1], np.arange(8) > 4)


def test_a_result_file_gives_back_what_was_written(tmp_path: Path) -> None:
    whole = result(3, np.array([True, False, True]), errors=(0.5, 0.25))
    whole.write(tmp_path / "result.json")
    assert cells.read(tmp_path / "result.json") == whole
    with pytest.raises(DataError, match="none.json: No such file or directory; `alexnet claims` makes it"):
        cells.read(tmp_path / "none.json")


def test_results_on_other_images_are_refused() -> None:
    one, other = result(1, np.ones(4, bool)), result(2, np.ones(4, bool), data="other")
    with pytest.raises(DataError, match="base, seed 2: judged on images other by center, needed: same by center"):
        cells.wrong_by_seed([one, other], "center")
    with pytest.raises(DataError, match="judged on images same by center, needed: same by ten"):
        cells.wrong_by_seed([one], "ten")


def test_the_data_digest_is_that_of_the_validation_shards() -> None:
    def digest(train: str, val: str) -> str:
        shards = {"train": (Shard("t", 1, train, 1, {}),), "val": (Shard("v", 1, val, 1, {}),)}
        return cells.data_digest(Manifest("test", "p/", 32, (), shards))  # type: ignore[arg-type]  # both splits

    assert digest("a", "b") == digest("c", "b") != digest("a", "c")
