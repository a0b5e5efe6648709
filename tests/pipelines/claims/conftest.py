"""Result files with known effects."""

from pathlib import Path

import numpy as np
import pytest

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
