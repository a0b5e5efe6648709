"""The values at every point, and what crosses, against the network and against sums by hand."""

import dataclasses

import pytest
import torch

from alexnet.inference.pretrained import Preprocessing, Pretrained, PretrainedConfig
from alexnet.model.network import AlexNet, initial_weights
from alexnet.model.points import points
from alexnet.shards.manifest import Synset
from pipelines.config import params
from pipelines.pictures.explain.trace import trace
from tests.support.stage_folder import PARAMS

IMAGE = torch.randint(0, 256, (256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def pretrained(variant: str | None = None) -> Pretrained:
    """A small network of random weights."""
    config = dataclasses.replace(params.load(PARAMS, variant=variant).model, kernels=(4, 8, 8, 8, 8), units=16, classes=3)
    network = AlexNet(config)
    network.load_full(initial_weights(config, seed=1))
    synsets = tuple(Synset(label, f"n{label}", f"<b>${label}") for label in range(3))
    return Pretrained(
        network, PretrainedConfig(config, synsets, Preprocessing(256, "triangle")), torch.full((256, 256, 3), 120.0)
    )


def test_every_point_is_traced_and_the_parts_of_the_towers_add_up() -> None:
    model = pretrained()
    traced = trace(model, IMAGE)
    assert tuple(traced.values) == points(model.config.model)
    assert torch.allclose(traced.probabilities, model.probabilities(IMAGE[None], "center")[0], atol=1e-6)
    logits = traced.logits_by_tower.sum(0) + model.network.fc8_bias.detach()
    assert torch.allclose(logits, traced.values["fc8"], atol=1e-5)
    assert [crossing.layer for crossing in traced.crossings] == ["conv3", "fc6", "fc7", "fc8"]
    a, b = traced.by_tower("conv1")
    assert torch.equal(torch.cat([a, b]), traced.values["conv1"])


def test_a_network_whose_last_layer_reads_a_convolution_is_traced() -> None:
    config = dataclasses.replace(pretrained().config.model, without=("fc6", "fc7"))
    network = AlexNet(config)
    network.load_full(initial_weights(config, seed=1))
    model = dataclasses.replace(pretrained(), network=network, config=dataclasses.replace(pretrained().config, model=config))
    traced = trace(model, IMAGE)
    logits = traced.logits_by_tower.sum(0) + network.fc8_bias.detach()
    assert torch.allclose(logits, traced.values["fc8"], atol=1e-5)


def test_a_tower_that_sends_nothing_has_no_share() -> None:
    model = pretrained()
    weights = initial_weights(model.config.model, seed=1)
    weights["conv3.weight"][:8, 8:] = 0  # tower a does not listen to tower b
    weights["conv3.weight"][8:, :8] = 0
    weights["conv3.weight"][8:, 3] = 1  # and tower b only to map 3 of tower a
    model.network.load_full(weights)
    conv3 = trace(model, IMAGE).crossings[0]
    assert conv3.shares[0] == 0
    assert conv3.shares[1] > 0.5
    assert conv3.strongest[1][0] == 3
    assert conv3.numbers == 8 * 13 * 13


def test_one_tower_has_no_crossings() -> None:
    traced = trace(pretrained("one-tower"), IMAGE)
    assert traced.crossings == ()
    assert traced.logits_by_tower.shape == (1, 3)


@pytest.mark.parametrize("variant", ["no-lrn", "tanh"])
def test_variants_are_traced(variant: str) -> None:
    assert trace(pretrained(variant), IMAGE).probabilities.sum() == pytest.approx(1, abs=1e-5)
