"""The runner: what is left to do, and a whole small scale that is killed and goes on."""

import contextlib
import dataclasses
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.claims import cells, mapping
from pipelines.claims.cells import Cell, Recipes
from pipelines.claims.run import Runner
from pipelines.runtime.environment import Store
from tests.pipelines.claims.test_cells import ROOT, result
from tests.support.stage_folder import environment, make_image_folder

BASE, OTHER, PAIR = Cell((1,), "base"), Cell((1,), "tanh"), Cell((1, 101), "base")
MAPPING = """
claims:
  tanh: {says: ReLU is better, section: "1", other: {variant: tanh}}
  two: {says: Two are better, section: "2", base: {members: 2}, views: many}
scales:
  tiny:
    about: As small as can be.
    preset: digits
    seeds: 2
    many: five
    judged_shards: null
    params:
      source: {name: folder, val_fraction: 0.5}
      shard: {side_px: 128, train_shards: 1, val_shards: 2}
      model: {classes: 2, input_px: 96, kernels: [2, 4, 4, 4, 4], units: 8}
      train: {batch_size: 4, epochs: 2}
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with these two claims, which is the current folder."""
    for name in ("params.yaml", "presets", "dvc.yaml", "pipelines", "alexnet"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "claims").mkdir()
    (tmp_path / mapping.FILE).write_text(MAPPING)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def runner() -> Runner:
    whole = mapping.read()
    recipes = Recipes(whole.scale("tiny"))
    return Runner("tiny", recipes, cells.plan(whole, recipes.scale, recipes))


def finish(of: Runner, cell: Cell, **changes: Any) -> None:
    """Writes a result by both protocols."""
    made = result(cell.seeds[0], np.ones(3, bool), cell.variant)
    both: Any = {"center": made.judged["center"], "five": made.judged["center"]}
    whole = dataclasses.replace(made, seeds=cell.seeds, recipe=of.recipes.digest(cell), judged=both)
    dataclasses.replace(whole, **changes).write(cells.path_of("tiny", cell))


def test_a_cell_is_finished_by_a_result_of_the_same_recipe_and_protocols(folder: Path) -> None:
    made = runner()
    assert not made.finished(BASE)
    finish(made, BASE)
    assert made.finished(BASE)
    finish(made, BASE, recipe="other")
    assert not made.finished(BASE)
    finish(made, BASE, judged={"center": result(1, np.ones(3, bool)).judged["center"]})
    assert not made.finished(BASE)


def test_a_member_is_trained_again_for_an_ensemble_that_lacks_its_probabilities(folder: Path) -> None:
    made = runner()
    for cell in made.wanted:
        finish(made, cell)
    assert made.unfinished() == []
    cells.path_of("tiny", PAIR).unlink()
    assert made.unfinished() == [BASE, Cell((101,), "base"), PAIR]
    place = folder / ".local" / "claims" / "tiny" / "base-1"
    place.mkdir(parents=True)
    (place / "probabilities.npz").touch()
    assert made.unfinished() == [Cell((101,), "base"), PAIR]


def command(folder: Path, scale: str = "tiny") -> subprocess.Popen[str]:
    arguments = [sys.executable, "-m", "pipelines.cli.main", "claims", "--scale", scale]
    return subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def results(folder: Path, scale: str = "tiny") -> dict[str, Any]:
    """All result files without what the clock decides."""
    found = {path.name: json.loads(path.read_text()) for path in (folder / "claims" / "results" / scale).glob("*.json")}
    return {name: tree | {"seconds": None} for name, tree in found.items()}


@pytest.mark.slow
def test_a_scale_that_is_killed_goes_on_to_the_same_results(
    folder: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = make_image_folder(folder / "photos", images=12)
    for name, value in (environment(fresh_store, source) | {"ALEXNET_WORKERS": "1", "ALEXNET_DEVICES": "cpu"}).items():
        monkeypatch.setenv(name, value)
    first = command(folder)
    while not (folder / "claims/results/tiny/base-1.json").exists():
        assert first.poll() is None, first.communicate()[0]
        time.sleep(0.1)
    time.sleep(2)  # within the next cell
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    assert 0 < len(results(folder)) < 8
    again = command(folder)
    text, _ = again.communicate()
    assert again.returncode == 0, text
    assert "cells are finished" in text
    assert "| ReLU is better (1) |" in text
    stopped = results(folder)
    assert {name.removesuffix(".json") for name in stopped} == {cell.name for cell in runner().wanted}
    for path in (folder / "claims" / "results" / "tiny").glob("*.json"):
        path.unlink()
    whole = command(folder)
    assert "about" in whole.communicate()[0]
    assert results(folder) == stopped


@pytest.mark.slow
def test_the_smoke_scale_killed_at_random_moments_ends_in_the_results_of_an_undisturbed_one(
    folder: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells that were being trained or judged when it was killed are made once more, from nothing."""
    (folder / mapping.FILE).write_bytes((ROOT / mapping.FILE).read_bytes())
    for name, value in environment(fresh_store, folder).items():
        monkeypatch.setenv(name, value)
    kept, worked = folder / "claims/results/smoke", folder / ".local/claims/smoke"
    moments, interrupted = random.Random(2012), set[str]()
    while len(interrupted) < 4:
        killed = command(folder, "smoke")
        with contextlib.suppress(subprocess.TimeoutExpired):
            killed.communicate(timeout=moments.uniform(15, 60))
        killed.kill()
        killed.communicate()
        begun = {path.parent.name for path in worked.glob("*/params.yaml")}
        interrupted |= {name for name in begun if not (kept / f"{name}.json").exists()}
    done = command(folder, "smoke")
    text, _ = done.communicate()
    assert done.returncode == 0, text
    resumed = results(folder, "smoke")
    assert len(resumed) > 30
    for name in interrupted:
        (kept / f"{name}.json").unlink()
        shutil.rmtree(worked / name)
    again = command(folder, "smoke")
    text, _ = again.communicate()
    assert again.returncode == 0, text
    assert results(folder, "smoke") == resumed
