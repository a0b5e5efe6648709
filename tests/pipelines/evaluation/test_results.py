"""results.json."""

from pathlib import Path

import pytest

from alexnet.config import to_json
from alexnet.errors import DataError
from pipelines.evaluation.results import NAME, Results
from tests.support.trained_folder import RESULTS


def test_results_are_read_as_they_were_written_or_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(to_json(RESULTS))
    assert Results.read(tmp_path / NAME) == RESULTS
    assert (RESULTS.center_crop.views, RESULTS.many_crops.views) == ("center", "five")
    (tmp_path / NAME).write_text('{"split": "train"}')
    with pytest.raises(DataError, match=r"results\.json: missing .*; run the evaluate stage again"):
        Results.read(tmp_path / NAME)
