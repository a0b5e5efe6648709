"""The recipe of section 5: its configuration, and the learning rates of every epoch.

"The run" is run #145 of the source released in 2012, see `model.architecture`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

from alexnet.loading.config import AugmentConfig


@dataclass(frozen=True)
class Rate:
    """The learning rate from an epoch on."""

    epoch: int
    lr: float


@dataclass(frozen=True)
class StallConfig:
    """Multiply by `factor` when top-1 validation error has not fallen for `patience` epochs, `drops` times; 0 drops: never."""

    patience: int
    factor: float
    drops: int

    def __post_init__(self) -> None:
        if self.patience < 1:
            raise ValueError(f"patience: must be at least 1, got {self.patience}")
        if not 0 < self.factor < 1:
            raise ValueError(f"factor: must be above 0 and below 1, got {self.factor}")
        if self.drops < 0:
            raise ValueError(f"drops: must be at least 0, got {self.drops}")


@dataclass(frozen=True)
class ScheduleConfig:
    """Learning rates by epoch: of weights, of biases, and of conv1's weights where they differ.

    The run froze conv1 early: at rate 0 neither its weights nor its biases change.
    """

    weights: tuple[Rate, ...]
    biases: tuple[Rate, ...]
    conv1: tuple[Rate, ...]
    stall: StallConfig

    def __post_init__(self) -> None:
        for name, rates in (("weights", self.weights), ("biases", self.biases)):
            if not rates or rates[0].epoch != 0:
                raise ValueError(f"{name}: must begin at epoch 0, got {list(rates)}")
        for name, rates in (("weights", self.weights), ("biases", self.biases), ("conv1", self.conv1)):
            epochs = [rate.epoch for rate in rates]
            if epochs != sorted(set(epochs)):
                raise ValueError(f"{name}: epochs must rise, got {epochs}")
            if not all(0 <= rate.lr < inf for rate in rates):
                raise ValueError(f"{name}: a learning rate must be at least 0, got {[rate.lr for rate in rates]}")


@dataclass(frozen=True)
class TrainConfig:
    """The recipe.

    order: `shuffled` anew every epoch, or `fixed`, as by the released loader of 2012. window_shards: how many shards are
    shuffled together, which the cache must hold at a time; None is a full shuffle (`BatchSampler`). decode: on the `host`, or
    on the `device` by nvJPEG, which does not smooth chroma. on_corrupt: a sample that cannot be decoded is an
    `error`, or with `skip` is counted and replaced by the next good one of its shard.
    """

    batch_size: int
    epochs: int
    momentum: float
    weight_decay: float
    bias_weight_decay: float
    schedule: ScheduleConfig
    order: Literal["shuffled", "fixed"]
    window_shards: int | None
    decode: Literal["host", "device"]
    on_corrupt: Literal["error", "skip"]
    precision: Literal["float32", "bf16"]
    augment: AugmentConfig

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.epochs < 1:
            raise ValueError(f"batch_size: must be at least 1, as epochs, got {self.batch_size} and {self.epochs}")
        if self.window_shards is not None and self.window_shards < 1:
            raise ValueError(f"window_shards: must be at least 1, or null for all, got {self.window_shards}")
        if not 0 <= self.momentum < 1:
            raise ValueError(f"momentum: must be in [0, 1), got {self.momentum}")
        for name, decay in (("weight_decay", self.weight_decay), ("bias_weight_decay", self.bias_weight_decay)):
            if not 0 <= decay < inf:
                raise ValueError(f"{name}: must be at least 0, got {decay}")


@dataclass(frozen=True)
class Rates:
    """Learning rates of one epoch."""

    weights: float
    biases: float
    conv1: float

    @property
    def conv1_biases(self) -> float:
        """They follow the other biases until conv1 is frozen."""
        return self.biases if self.conv1 else 0.0


def rates_at(schedule: ScheduleConfig, epoch: int, val_errors: Sequence[float]) -> Rates:
    """The rates of an epoch, given the top-1 validation errors of the epochs before it."""
    scale = schedule.stall.factor ** stalls(schedule.stall, val_errors)
    weights = _at(schedule.weights, epoch)
    return Rates(
        weights=weights * scale,
        biases=_at(schedule.biases, epoch) * scale,
        conv1=_at(schedule.conv1, epoch, weights) * scale,
    )


def _at(rates: Sequence[Rate], epoch: int, before: float = 0.0) -> float:
    return next((rate.lr for rate in reversed(rates) if rate.epoch <= epoch), before)


def stalls(config: StallConfig, val_errors: Sequence[float]) -> int:
    """How often the error has stalled so far, at most `drops` times; after each stall patience starts anew."""
    drops, best, since = 0, float("inf"), 0
    for error in val_errors:
        since = 0 if error < best else since + 1
        best = min(best, error)
        if drops < config.drops and since >= config.patience:
            drops, since = drops + 1, 0
    return drops
