"""Configurations that the library's tests share."""

from dataclasses import replace

import pytest

from alexnet.model.architecture import ModelConfig
from pipelines.config import params


@pytest.fixture(scope="session")
def paper() -> ModelConfig:
    """The reference at full width."""
    return params.load(preset="imagenet").model


@pytest.fixture
def tiny(paper: ModelConfig) -> ModelConfig:
    """The reference with few kernels: the same code in milliseconds."""
    init = replace(paper.init, std=0.05, middle_std=0.1)
    return replace(paper, classes=10, kernels=(4, 8, 8, 8, 8), units=16, init=init)


@pytest.fixture
def four_layer() -> ModelConfig:
    """The network of figure 1 with few kernels."""
    return replace(params.load(preset="four-layer").model, kernels=(4, 6, 8))
