"""Schedules: learning rates by epoch, and by stalls of the validation error."""

from dataclasses import replace

import pytest

from alexnet.train import Rate, Rates, ScheduleConfig, StallConfig, rates_at, stalls
from pipelines import params

NEVER = StallConfig(patience=1, factor=0.1, drops=0)


def test_the_reference_follows_run_170() -> None:
    schedule = params.load(preset="imagenet").train.schedule
    assert rates_at(schedule, 0, []) == Rates(weights=0.01, biases=0.02, conv1=0.01)
    assert rates_at(schedule, 23, []) == Rates(weights=0.01, biases=0.02, conv1=0.01)
    assert rates_at(schedule, 24, []).weights == 0.0015874
    assert rates_at(schedule, 48, []) == Rates(weights=0.00025198, biases=0.002, conv1=0.00025198)
    assert rates_at(schedule, 73, []).conv1 == 0.00004
    assert rates_at(schedule, 94, []) == Rates(weights=0.00004, biases=0.002, conv1=0.0)


def test_the_schedule_of_run_145_can_be_written_down() -> None:
    schedule = ScheduleConfig(
        weights=(Rate(0, 0.01), Rate(25, 0.001), Rate(51, 0.0001), Rate(79, 0.00001)),
        biases=(Rate(0, 0.02),),
        conv1=(Rate(67, 0.00001), Rate(72, 0.0)),
        stall=NEVER,
    )
    assert rates_at(schedule, 66, []).conv1 == 0.0001
    assert rates_at(schedule, 67, []) == Rates(weights=0.0001, biases=0.02, conv1=0.00001)
    assert rates_at(schedule, 90, []) == Rates(weights=0.00001, biases=0.02, conv1=0.0)


def test_the_papers_text_divides_by_ten_three_times_when_validation_stalls() -> None:
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
        ({"weights": (Rate(0, -0.1),)}, "weights: a learning rate must not be negative"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(change: dict[str, tuple[Rate, ...]], message: str) -> None:
    good = ScheduleConfig((Rate(0, 0.01),), (Rate(0, 0.02),), (), NEVER)
    with pytest.raises(ValueError, match=message):
        replace(good, **change)  # type: ignore[arg-type]  # a partial tree of fields
