"""What a scale costs."""

import dataclasses
import re

import pytest

from pipelines.claims import mapping
from pipelines.claims.cost import cost
from pipelines.runtime import rates
from tests.pipelines.claims.test_cells import ROOT


def test_hours_are_networks_times_epochs_times_images_by_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    whole = mapping.read()
    dropout = dataclasses.replace(whole.scale("full"), claims=("dropout",))  # both sides have as many multiply-adds
    found = cost("full", dataclasses.replace(whole, scales={"full": dropout}))
    networks, hours = re.match(r"(\d+) networks, (\d+) GPU hours of training", found).groups()  # type: ignore[union-attr]  # of the match
    assert int(networks) == 2 * dropout.seeds
    assert int(hours) == pytest.approx(int(networks) * 95 * 1_281_167 / _rate() / 3600, abs=1)


def _rate() -> float:
    from pipelines.config import params

    given = params.load(preset="imagenet")
    found = rates.training_rate(given.model, given.train.precision, given.train.batch_size, on_gpu=True)
    assert found is not None
    return found[0]


def test_a_scale_of_data_that_is_not_counted_beforehand_has_no_hours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert cost("smoke", mapping.read()) == "34 networks."
