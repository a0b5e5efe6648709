"""The estimate for ImageNet is arithmetic on the committed results."""

import copy

import pytest

from benchmarks import imagenet, report

RESULTS = report.read_results()


def test_a_rate_that_doubles_halves_its_step_alone() -> None:
    faster = copy.deepcopy(RESULTS)
    faster["train_epoch-nvidia-h200"]["images_per_second"]["load"] *= 2
    before, after = ({step.name: step.seconds for step in imagenet.steps(results)} for results in (RESULTS, faster))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"the same, if 16 cores decode"}
    assert after[changed.pop()] * 2 == pytest.approx(before["the same, if 16 cores decode"])


def test_training_is_every_epoch_of_every_image_at_the_measured_rate() -> None:
    """95 x 1,281,167 images (the preset imagenet; ILSVRC-2012) at the H200's 18,691 a second."""
    found = {step.name: step.seconds for step in imagenet.steps(RESULTS)}
    assert found["train on one H200, if the loader is never waited for"] == pytest.approx(95 * 1_281_167 / 18_691)


def test_the_sum_has_one_way_to_train_and_one_to_evaluate() -> None:
    found = imagenet.steps(RESULTS)
    others = {"train on one H200, if the loader is never waited for", "ten-crop evaluation on two CPU cores, bf16"}
    assert {step.name for step in found if not step.counted} == others
    total = sum(step.seconds for step in found if step.name not in others)
    assert f"In all {imagenet.duration(total)}" in imagenet.text(RESULTS)


@pytest.mark.parametrize(("seconds", "text"), [(7, "7 s"), (119, "119 s"), (240, "4 min"), (6512, "1.8 h"), (8686, "2.4 h")])
def test_a_duration_has_one_unit(seconds: float, text: str) -> None:
    assert imagenet.duration(seconds) == text
