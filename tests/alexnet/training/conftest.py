"""A recipe for a handful of steps."""

from dataclasses import replace

import pytest

from alexnet.training.schedule import Rate, TrainConfig
from pipelines.config import params


@pytest.fixture
def recipe() -> TrainConfig:
    """The reference's recipe, with every augmentation on, for a handful of steps."""
    train = params.load(preset="imagenet").train
    schedule = replace(train.schedule, weights=(Rate(0, 0.01), Rate(2, 0.001)), biases=(Rate(0, 0.02),))
    return replace(train, batch_size=8, epochs=3, precision="float32", schedule=schedule)
