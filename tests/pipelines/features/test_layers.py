"""What a probe reads: every layer's output, few enough numbers of it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from alexnet.inference.activations import activations
from alexnet.loading.augment import center_crop
from pipelines.config import params
from pipelines.features.layers import layer_outputs, layer_points
from pipelines.runtime.environment import Store
from tests.support.trained_folder import make_trained_folder


def test_a_layers_point_is_its_last_but_for_dropout() -> None:
    model = params.load().model
    assert list(layer_points(model).values()) == [
        *("conv1.relu", "conv2.pool", "conv3.relu", "conv4.relu", "conv5.relu", "fc6.relu", "fc7.relu", "fc8")
    ]
    assert layer_points(replace(model, nonlinearity="tanh"))["fc7"] == "fc7.tanh"


def test_convolutions_are_averaged_and_units_given_whole(
    tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_trained_folder(tmp_path, fresh_store, monkeypatch).model
    images = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    found = layer_outputs(model, images, 100)
    sizes = {name: values.shape[1] for name, values in found.items()}
    assert sizes == {
        "pixels": 3 * 5 * 5,
        "conv1": 8 * 3 * 3,
        "conv2": 16 * 2 * 2,
        "conv3": 16 * 2 * 2,
        "conv4": 16 * 2 * 2,
        "conv5": 16 * 2 * 2,
        "fc6": 32,
        "fc7": 32,
        "fc8": 3,
    }
    crops = center_crop(images, model.mean_crop)
    whole = activations(model.network, crops, ["conv2.pool", "fc7.relu"])
    assert torch.equal(found["fc7"], whole["fc7.relu"])
    assert torch.equal(found["conv2"], functional.adaptive_avg_pool2d(whole["conv2.pool"], 2).flatten(1))
    assert layer_outputs(model, images, 1)["conv5"].shape == (2, 16)  # a number a channel at least
    assert layer_outputs(model, images, 10**6)["conv5"].shape == (2, 16 * 6 * 6)
