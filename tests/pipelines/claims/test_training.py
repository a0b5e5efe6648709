"""The paper against its source against this project: every row is of this code, and a test holds it."""

from pathlib import Path

import pytest

from pipelines.claims import training
from pipelines.config import params, tree
from tests.pipelines.claims.test_cells import ROOT

ROWS = tree.read(ROOT / training.FILE)["rows"]


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[row["what"] for row in ROWS])
def test_the_preset_follows_the_source_and_the_variant_the_text(number: int) -> None:
    source = params.load_tree(preset=training.PRESET)
    text = params.load_tree(preset=training.PRESET, variant=training.TEXT)
    row = training.read()[number]
    assert {path: training.at(source, path) for path in row.source_is} == row.source_is
    assert {path: training.at(text, path) for path in row.paper_is} == row.paper_is
    file, _, name = row.test.partition("::")
    assert f"def {name}(" in Path(file).read_text(), row.test
    assert "{" not in row.ours


def test_the_column_of_this_project_follows_its_numbers() -> None:
    given = params.load(preset=training.PRESET)
    assert training.fill("{train.batch_size} at {drops}; {model.lrn.k:g}; {counts.parameters:,}", given) == (
        "128 at 24, 48, 71; 2; 60,965,224"
    )
    small = params.load()
    assert training.fill("{model.dropout_layers}, {model.dropout_inverted}", small) == "fc6, fc7, no"


def test_the_page_says_where_the_text_differs() -> None:
    rows = {line.split("|")[1].strip(): line.split("|")[5].strip() for line in training.markdown().splitlines()[9:] if line}
    assert len(rows) == len(ROWS)
    assert (rows["Order in layer 1"], rows["Pooling"], rows["Color noise"]) == ("yes", "", "yes")
