"""The reliability diagram."""

from pathlib import Path

import numpy as np

from alexnet.inference.metrics import LabelRanks, TopK, calibration
from pipelines.pictures.calibration import draw_reliability


def test_the_expected_calibration_error_is_that_of_the_bins(tmp_path: Path) -> None:
    confidence = np.array([0.95] * 10 + [0.55] * 10, np.float32)
    is_right = np.array([True] * 9 + [False] + [True] * 5 + [False] * 5)
    top = TopK(np.zeros((20, 1), np.int64), confidence[:, None])
    ranks = LabelRanks(confidence, np.where(is_right, 0, 1), np.ones(20, np.int64))
    draw_reliability(tmp_path / "reliability", calibration(top, ranks), "test")  # |0.95 - 0.9| and |0.55 - 0.5|
    svg = (tmp_path / "reliability.svg").read_text()
    assert "expected calibration error 5.00%" in svg
    assert "accuracy on test images" in svg
