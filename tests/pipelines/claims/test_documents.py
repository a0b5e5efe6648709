"""Documents made from committed results."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from alexnet.errors import DataError
from pipelines.claims import cells, documents, mapping
from pipelines.claims.cells import Recipes
from tests.pipelines.claims.test_cells import ROOT, result


def test_readme_and_docs_are_what_the_committed_results_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for path, text in documents.texts(mapping.read()).items():
        assert path.read_text() == text, f"{path}: `alexnet claims --write` brings it up to the results"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """With the claims and no results, as the current folder."""
    for name in ("params.yaml", "presets"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "claims").mkdir()
    for path in ("claims/claims.yaml", "claims/training.yaml", "README.md"):
        shutil.copy(ROOT / path, tmp_path / path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_results_that_come_one_by_one_are_shown_as_far_as_they_are(checkout: Path) -> None:
    whole = mapping.read()
    assert "No results are committed yet." in documents.texts(whole)[documents.README]
    recipes = Recipes(whole.scale("pocket"))
    for seed in (1, 2, 3):
        for variant in ("base", "no-dropout"):
            wrong = np.random.default_rng(seed).random(500) < (0.1 if variant == "base" else 0.4)
            side = whole.claims["dropout"].base if variant == "base" else whole.claims["dropout"].other
            made = result(seed, wrong, variant)
            both = replace(made, judged={"center": made.judged["center"], "five": made.judged["center"]})
            both.write(cells.path_of("pocket", recipes.cell(side, seed)))
    documents.write(whole)
    rows = [line for line in documents.README.read_text().splitlines() if line.startswith("| dropout (4.2)")]
    assert len(rows) == 1
    assert "| supported | 3 of 6 |" in rows[0]
    assert "not measured yet" in documents.README.read_text()
    assert Path("claims/pocket.md").exists()
    assert documents.texts(whole)[documents.README] == documents.README.read_text()


def test_a_readme_without_its_markers_is_refused(checkout: Path) -> None:
    documents.README.write_text("nothing")
    with pytest.raises(DataError, match=r"README.md: must hold the lines '<!-- what"):
        documents.texts(mapping.read())
