"""Results from predictions."""

import math
from dataclasses import astuple

import pytest

from pipelines.evaluation.intervals import share
from pipelines.evaluation.measure import measure, scores
from pipelines.evaluation.predictions import Predictions
from tests.support import sample_shards


def test_every_number_has_its_interval_and_the_center_crop_leads(predictions: Predictions) -> None:
    manifest = sample_shards.make([3]).manifest()
    found = measure(predictions, manifest, "val", {"majority": 0.75, "ridge": 0.25, "tanh": 0.5})
    assert (found.split, found.images, found.classes) == ("val", 4, 3)
    assert [row.views for row in found.protocols] == ["center", "five"]
    assert found.center_crop.top1_error == share(0.5, 4)
    assert found.many_crops.top1_error == share(0.0, 4)
    assert (found.majority, found.ridge) == (share(0.75, 4), share(0.25, 4))
    assert found.variants == {"tanh": share(0.5, 4)}
    loss = -sum(map(math.log, (0.3, 0.5, 0.8, 0.1))) / 4
    assert found.center_crop.log_loss.low < loss < found.center_crop.log_loss.high
    calibration_error = (0.6 + 0.5 + 0.2 + 0.9) / 4  # each image is alone in its bin
    assert astuple(scores(found.center_crop)) == pytest.approx((0.5, 0.0, loss, calibration_error))
