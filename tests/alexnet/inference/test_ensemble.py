"""Networks whose probabilities are averaged."""

import pytest
import torch

from alexnet.inference.ensemble import Ensemble
from alexnet.inference.pretrained import Preprocessing, Pretrained, PretrainedConfig
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import AlexNet, initial_weights
from alexnet.shards.manifest import Synset

IMAGES = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


@pytest.fixture
def members(tiny: ModelConfig) -> tuple[Pretrained, ...]:
    synsets = tuple(Synset(label, f"n{label}", f"class {label}") for label in range(tiny.classes))
    found = []
    for seed in (1, 2, 3):
        network = AlexNet(tiny)
        network.load_full(initial_weights(tiny, seed))
        config = PretrainedConfig(tiny, synsets, Preprocessing(256, "triangle"))
        found.append(Pretrained(network, config, torch.full((256, 256, 3), 100.0 + seed)))
    return tuple(found)


def test_an_ensemble_of_two_is_exactly_the_mean_of_their_probabilities(members: tuple[Pretrained, ...]) -> None:
    first, second, _ = (member.by_crop(IMAGES, "center") for member in members)
    assert not torch.equal(first, second)
    assert torch.equal(Ensemble(members[:2]).by_crop(IMAGES, "center"), (first + second) / 2)


def test_an_ensemble_in_bf16_is_the_mean_of_its_networks_in_bf16(members: tuple[Pretrained, ...]) -> None:
    first, second = (member.at("bf16").by_crop(IMAGES, "center") for member in members[:2])
    pair = Ensemble(members[:2])
    assert torch.equal(pair.at("bf16").by_crop(IMAGES, "center"), (first + second) / 2)
    assert not torch.equal(pair.by_crop(IMAGES, "center"), (first + second) / 2)


def test_weights_need_not_add_up_to_one(members: tuple[Pretrained, ...]) -> None:
    first, second, third = (member.by_crop(IMAGES, "center") for member in members)
    found = Ensemble(members, (2.0, 1.0, 5.0)).by_crop(IMAGES, "center")
    assert torch.allclose(found, first * 0.25 + second * 0.125 + third * 0.625, atol=1e-7)
    assert torch.allclose(
        Ensemble(members, (3.0, 3.0, 3.0)).by_crop(IMAGES, "center"), Ensemble(members).by_crop(IMAGES, "center")
    )


@pytest.mark.parametrize("weights", [(1.0,), (1.0, 0.0), (1.0, float("inf")), (1.0, float("nan"))])
def test_other_weights_are_refused(members: tuple[Pretrained, ...], weights: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="weights: must be none, or 2 numbers above 0"):
        Ensemble(members[:2], weights)
