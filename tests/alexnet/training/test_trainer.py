"""The training loop: numbers that may only change on purpose, and what it learns."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from alexnet.images.statistics import PixelStatistics
from alexnet.loading.loader import Batch
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import AlexNet, initial_weights
from alexnet.randomness.keys import permutation, random_key
from alexnet.training.checkpoint import Checkpoints
from alexnet.training.loop import Callbacks, fit
from alexnet.training.schedule import Rate, TrainConfig, rates_at
from alexnet.training.trainer import Trainer, TrainingJob, _parameter_groups
from pipelines.config import params

GOLDEN = Path(__file__).parents[2] / "golden" / "loss.json"


class Memory:
    """Batches of images in memory: bars whose place is the class."""

    def __init__(self, count: int, batch_size: int) -> None:
        self.batch_size = batch_size
        self.labels = torch.arange(count) % 4
        self.images = torch.randint(0, 60, (count, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(5))
        for image, label in zip(self.images, self.labels.tolist(), strict=True):
            image[:, 50 * label + 30 : 50 * label + 60] += 180

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        order = torch.from_numpy(permutation(random_key(1, "order", epoch), len(self.labels)))
        for start in range(first_step * self.batch_size, len(order), self.batch_size):
            rows = order[start : start + self.batch_size]
            yield Batch(self.images[rows], self.labels[rows], rows)


@pytest.fixture
def recipe() -> TrainConfig:
    """The reference's recipe, with every augmentation on, for a handful of steps."""
    train = params.load(preset="imagenet").train
    schedule = replace(train.schedule, weights=(Rate(0, 0.01), Rate(2, 0.001)), biases=(Rate(0, 0.02),))
    return replace(train, batch_size=8, epochs=3, precision="float32", schedule=schedule)


def trainer(model: ModelConfig, recipe: TrainConfig, dtype: torch.dtype = torch.float32) -> Trainer:
    pixels = PixelStatistics(
        mean_image=np.full((256, 256, 3), 50.0, np.float32),
        channel_mean=np.full(3, 50.0),
        channel_std=np.full(3, 60.0),
        eigenvectors=np.eye(3),
        eigen_std=np.array([5.0, 10.0, 50.0]),
        images=24,
    )
    return Trainer(TrainingJob(1, model, recipe, "memory"), AlexNet(model).to(dtype), pixels, torch.device("cpu"))


def losses(model: ModelConfig, recipe: TrainConfig, steps: int) -> list[float]:
    """Mean losses of the first steps, in float64."""
    run = trainer(model, recipe, torch.float64)
    run.network.load_full(initial_weights(model, 1, torch.float64))
    data, found = Memory(24, 8), []
    for number in range(steps):
        epoch, step = divmod(number, data.steps_per_epoch)
        run.set_rates(rates_at(recipe.schedule, epoch, []))
        batch = next(data.epoch(epoch, step))
        found.append(run.step(batch, epoch, number)[0].item() / len(batch.labels))
    return found


def test_the_first_ten_losses_are_the_golden_ones(tiny: ModelConfig, recipe: TrainConfig) -> None:
    """Who changes them changes every model, and this file with them, and says why."""
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
        run.step(next(Memory(8, 8).epoch(epoch)), epoch, epoch)
        seen.append({name: tensor.clone() for name, tensor in run.tensors().items()})
    still = {name for name, tensor in seen[0].items() if torch.equal(tensor, seen[1][name])}
    assert still == {"conv1.weight", "conv1.bias", "velocity/conv1.weight", "velocity/conv1.bias"}


def test_a_network_learns_what_there_is_to_learn(tiny: ModelConfig, recipe: TrainConfig, tmp_path: Path) -> None:
    schedule = replace(recipe.schedule, weights=(Rate(0, 0.01), Rate(1, 0.001)))
    quiet = replace(recipe, epochs=2, schedule=schedule, augment=replace(recipe.augment, flip=False))
    model = replace(tiny, classes=4, dropout=0.0)
    history = fit(trainer(model, quiet), Memory(64, 8), Memory(24, 8), Checkpoints(tmp_path), Callbacks())
    assert [(row.epoch, row.step, row.lr) for row in history] == [(0, 8, 0.01), (1, 16, 0.001)]
    assert history[0].train_top1_error > 0.3
    assert history[-1].val_top1_error < 0.2
    assert all(0 <= row.val_top5_error <= row.val_top1_error <= 1 for row in history)


def test_bfloat16_trains_like_float32(tiny: ModelConfig, recipe: TrainConfig) -> None:
    def first(precision: str) -> list[float]:
        run = trainer(tiny, replace(recipe, precision=precision))  # type: ignore[arg-type]  # a literal
        run.network.load_full(initial_weights(tiny, 1))
        run.set_rates(rates_at(recipe.schedule, 0, []))
        return [run.step(batch, 0, number)[0].item() / 8 for number, batch in enumerate(Memory(24, 8).epoch(0))]

    assert first("bf16") == pytest.approx(first("float32"), rel=0.05)


def test_weights_stay_float32_under_bfloat16(tiny: ModelConfig, recipe: TrainConfig) -> None:
    run = trainer(tiny, replace(recipe, precision="bf16"))
    run.step(next(Memory(8, 8).epoch(0)), 0, 0)
    kinds: set[torch.dtype] = {tensor.dtype for tensor in run.tensors().values() if isinstance(tensor, Tensor)}
    assert kinds == {torch.float32}
