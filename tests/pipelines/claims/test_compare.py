"""What came of claims, from result files with known effects."""

import numpy as np
import pytest

from alexnet.errors import DataError
from pipelines.claims import compare, mapping
from pipelines.claims.cells import Recipes
from tests.pipelines.claims.conftest import IMAGES


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


def test_a_scale_without_results_is_refused(table: compare.Table) -> None:
    whole = mapping.read()
    with pytest.raises(DataError, match="claims/results/none: holds no results; `alexnet claims --scale none` makes"):
        compare.compare("none", whole, Recipes(whole.scale("tiny")))
