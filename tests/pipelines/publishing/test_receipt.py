"""The receipt, as it is written and read."""

from pathlib import Path

import pytest

from alexnet.config import read_json, to_json
from alexnet.errors import DataError
from pipelines.evaluation.intervals import Paired
from pipelines.evaluation.results import Estimate
from pipelines.publishing.comparison import Comparison
from pipelines.publishing.promotion import Promotion
from pipelines.publishing.receipt import Receipt


def test_a_receipt_is_read_as_it_was_written(tmp_path: Path) -> None:
    some = Estimate(0.1, 0.0, 0.2)
    outcome = Promotion(True, "not worse", "0123456789abcdef", Comparison(some, some, Paired(10, 1, 1, some, 1.0)))
    path = tmp_path / "receipt.json"
    for champion in (None, outcome, Promotion(True, "the first")):
        receipt = Receipt("alexnet", "89", {"a": "b"}, "latest", None, champion)
        path.write_bytes(to_json(receipt))
        assert read_json(Receipt, path, "") == receipt
    path.write_text("{}")
    with pytest.raises(DataError, match="missing name"):
        read_json(Receipt, path, "publish again")
