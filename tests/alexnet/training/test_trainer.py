"""Steps of training: numbers that may only change on purpose, and which parameters they move."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alexnet.model.architecture import ModelConfig
from alexnet.model.network import AlexNet, initial_weights
from alexnet.training.schedule import Rate, TrainConfig, rates_at
from alexnet.training.trainer import _parameter_groups
from tests.support.bars import Bars, trainer

GOLDEN = Path(__file__).parents[2] / "golden" / "loss.json"


def losses(model: ModelConfig, recipe: TrainConfig, steps: int) -> list[float]:
    """Mean losses of the first steps, in float64."""
    run = trainer(model, recipe, torch.float64)
    run.network.load_full(initial_weights(model, 1, torch.float64))
    data, found = Bars(24, 8), []
    for number in range(steps):
        epoch, step = divmod(number, data.steps_per_epoch)
        run.set_rates(rates_at(recipe.schedule, epoch, []))
        batch = next(data.epoch(epoch, step))
        found.append(run.step(batch, epoch, number)[0].item() / len(batch.labels))
    return found


def test_the_first_ten_losses_are_the_golden_ones(tiny: ModelConfig, recipe: TrainConfig) -> None:
    """A change of these numbers changes every model: it must change this file too, and say why."""
    assert losses(tiny, recipe, 10) == pytest.approx(json.loads(GOLDEN.read_text())["losses"], rel=1e-9)


def test_conv1_and_biases_have_rates_of_their_own_and_biases_do_not_decay(tiny: ModelConfig, recipe: TrainConfig) -> None:
    for tower_ranges in (None, ((0, 1), (1, 2))):
        network = AlexNet(tiny, tower_ranges=tower_ranges)
        groups = {group["name"]: group for group in _parameter_groups(network, recipe)}
        names = {parameter: name for name, _, parameter in network.parameter_slices()}
        found = {name: {names[parameter] for parameter in group["params"]} for name, group in groups.items()}
        layers = [row.name for row in network.layers]
        assert found["conv1"] == {"conv1.weight"}
        assert found["conv1_biases"] == {"conv1.bias"}
        assert found["weights"] == {f"{layer}.weight" for layer in layers[1:]}
        assert found["biases"] == {f"{layer}.bias" for layer in layers[1:]}
        assert sum(len(group["params"]) for group in groups.values()) == len(names)
        decays = {name: group["weight_decay"] for name, group in groups.items()}
        assert decays == {"conv1": 0.0005, "weights": 0.0005, "biases": 0.0, "conv1_biases": 0.0}


def test_a_frozen_conv1_stands_still_biases_and_all(tiny: ModelConfig, recipe: TrainConfig) -> None:
    schedule = replace(recipe.schedule, conv1=(Rate(1, 0.0),))
    run = trainer(tiny, recipe)
    run.network.load_full(initial_weights(tiny, 1))
    seen = []
    for epoch in range(2):
        run.set_rates(rates_at(schedule, epoch, []))
        run.step(next(Bars(8, 8).epoch(epoch)), epoch, epoch)
        seen.append({name: tensor.clone() for name, tensor in run.tensors().items()})
    still = {name for name, tensor in seen[0].items() if torch.equal(tensor, seen[1][name])}
    assert still == {"conv1.weight", "conv1.bias", "velocity/conv1.weight", "velocity/conv1.bias"}


def test_bfloat16_trains_like_float32(tiny: ModelConfig, recipe: TrainConfig) -> None:
    def first(precision: str) -> list[float]:
        run = trainer(tiny, replace(recipe, precision=precision))  # type: ignore[arg-type]  # a literal
        run.network.load_full(initial_weights(tiny, 1))
        run.set_rates(rates_at(recipe.schedule, 0, []))
        return [run.step(batch, 0, number)[0].item() / 8 for number, batch in enumerate(Bars(24, 8).epoch(0))]

    assert first("bf16") == pytest.approx(first("float32"), rel=0.05)


def test_weights_stay_float32_under_bfloat16(tiny: ModelConfig, recipe: TrainConfig) -> None:
    run = trainer(tiny, replace(recipe, precision="bf16"))
    run.step(next(Bars(8, 8).epoch(0)), 0, 0)
    kinds: set[torch.dtype] = {tensor.dtype for tensor in run.tensors().values() if isinstance(tensor, Tensor)}
    assert kinds == {torch.float32}
