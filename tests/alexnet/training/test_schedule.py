"""Schedules: learning rates by epoch, and by stalls of the validation error."""

from dataclasses import replace
from typing import Any

import pytest

from alexnet.training.schedule import Rate, Rates, ScheduleConfig, StallConfig, rates_at, stalls
from pipelines.config import params

NEVER = StallConfig(patience=1, factor=0.1, drops=0)


def test_the_reference_follows_run_170() -> None:
    schedule = params.load(preset="imagenet").train.schedule
    assert rates_at(schedule, 0, []) == Rates(weights=0.01, biases=0.02, conv1=0.01)
    assert rates_at(schedule, 23, []) == Rates(weights=0.01, biases=0.02, conv1=0.01)
    assert rates_at(schedule, 24, []).weights == 0.0015874
    assert rates_at(schedule, 48, []) == Rates(weights=0.00025198, biases=0.002, conv1=0.00025198)
    assert rates_at(schedule, 73, []).conv1 == 0.00004
    assert rates_at(schedule, 94, []) == Rates(weights=0.00004, biases=0.002, conv1=0.0)


def test_run_145_lowers_its_rates_by_hand_and_conv1s_before_the_others() -> None:
    """layer-params-145.cfg; the biases kept their rate, but those of conv1 were frozen with it."""
    train = params.load(preset="imagenet", variant="run-145").train
    assert train.epochs == 91
    assert train.augment.color_noise.end_epoch == 67
    rates = [rates_at(train.schedule, epoch, []) for epoch in range(train.epochs)]
    assert [rate.weights for rate in rates] == [0.01] * 25 + [0.001] * 26 + [0.0001] * 28 + [0.00001] * 12
    assert [rate.conv1 for rate in rates] == [0.01] * 25 + [0.001] * 26 + [0.0001] * 16 + [0.00001] * 5 + [0.0] * 19
    assert {rate.biases for rate in rates} == {0.02}
    assert [rate.conv1_biases for rate in rates] == [0.02] * 72 + [0.0] * 19


def test_the_papers_text_takes_one_rate_for_all_and_divides_it_by_ten_three_times_in_90_epochs() -> None:
    train = params.load(preset="imagenet", variant="paper-text").train
    assert train.epochs == 90
    errors = [0.9 - 0.01 * epoch for epoch in range(40)]
    errors[20] = 0.95  # one bad epoch is no stall
    for seen, lr in ((errors, 0.01), (errors + [0.6] * 50, 0.00001)):
        rates = rates_at(train.schedule, len(seen), seen)
        assert rates.weights == rates.biases == rates.conv1 == pytest.approx(lr)


def test_rates_are_divided_by_ten_three_times_when_validation_stalls() -> None:
    schedule = ScheduleConfig((Rate(0, 0.01),), (Rate(0, 0.01),), (), StallConfig(patience=2, factor=0.1, drops=3))
    errors = [0.9, 0.8, 0.8, 0.8, 0.7, 0.75, 0.7, 0.7, 0.7, 0.7, 0.7]
    found = [round(rates_at(schedule, epoch, errors[:epoch]).weights, 8) for epoch in range(len(errors) + 1)]
    assert found == [0.01] * 4 + [0.001] * 3 + [0.0001] * 2 + [0.00001] * 3


def test_stalls_count_anew_after_a_drop() -> None:
    config = StallConfig(patience=3, factor=0.1, drops=9)
    assert stalls(config, [0.5] * 4) == 1
    assert stalls(config, [0.5] * 6) == 1
    assert stalls(config, [0.5] * 7) == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"weights": ()}, "weights: must begin at epoch 0"),
        ({"biases": (Rate(1, 0.1),)}, "biases: must begin at epoch 0"),
        ({"conv1": (Rate(3, 0.1), Rate(3, 0.0))}, "conv1: epochs must rise"),
        ({"weights": (Rate(0, -0.1),)}, r"weights: a learning rate must be at least 0, got \[-0.1\]"),
        ({"biases": (Rate(0, float("nan")),)}, r"biases: a learning rate must be at least 0, got \[nan\]"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(change: dict[str, tuple[Rate, ...]], message: str) -> None:
    good = ScheduleConfig((Rate(0, 0.01),), (Rate(0, 0.02),), (), NEVER)
    with pytest.raises(ValueError, match=message):
        replace(good, **change)  # type: ignore[arg-type]  # a partial tree of fields


@pytest.mark.parametrize(
    ("section", "change", "message"),
    [
        ("stall", {"patience": 0}, "patience: must be at least 1, got 0"),
        ("stall", {"factor": 10.0}, "factor: must be above 0 and below 1, got 10.0"),
        ("stall", {"drops": -1}, "drops: must be at least 0, got -1"),
        ("noise", {"std": -0.1}, "std: must be at least 0, got -0.1"),
        ("noise", {"divide": 0.0}, "divide: must be above 0, got 0.0"),
        ("train", {"weight_decay": -0.0005}, "weight_decay: must be at least 0, got -0.0005"),
        ("train", {"bias_weight_decay": float("inf")}, "bias_weight_decay: must be at least 0, got inf"),
        ("train", {"momentum": 1.0}, r"momentum: must be in \[0, 1\), got 1.0"),
        ("train", {"epochs": 0}, "batch_size: must be at least 1, as epochs, got 128 and 0"),
        ("augment", {"crop_run": 0}, "crop_offsets: must be at least 1, as crop_run, got 33 and 0"),
    ],
)
def test_a_recipe_that_makes_no_sense_is_refused(section: str, change: dict[str, object], message: str) -> None:
    train = params.load(preset="imagenet").train
    sections: dict[str, Any] = {
        "stall": train.schedule.stall,
        "noise": train.augment.color_noise,
        "augment": train.augment,
        "train": train,
    }
    with pytest.raises(ValueError, match=message):
        replace(sections[section], **change)
