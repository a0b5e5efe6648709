"""Which augmentations are refused, and that reading their configuration imports no torch."""

import subprocess
import sys
from dataclasses import replace
from math import inf, nan
from typing import Any

import pytest

from alexnet.loading.config import AugmentConfig, ColorNoiseConfig

CROP_PX = 224
NOISE = ColorNoiseConfig(std=0.1, along="std", divide=1.0, end_epoch=None)
AUGMENT = AugmentConfig(crop="random", crop_offsets=33, crop_run=1, flip=True, color_noise=NOISE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"std": -0.1}, "std: must be at least 0, got -0.1"),
        ({"std": inf}, "std: must be at least 0, got inf"),
        ({"std": nan}, "std: must be at least 0, got nan"),
        ({"divide": 0.0}, "divide: must be above 0, got 0.0"),
        ({"divide": inf}, "divide: must be above 0, got inf"),
    ],
)
def test_color_noise_that_is_no_finite_number_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(NOISE, **change)


@pytest.mark.parametrize("change", [{"crop_offsets": 0}, {"crop_run": 0}])
def test_no_offsets_and_no_run_of_samples_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="crop_offsets: must be at least 1, as crop_run, got"):
        replace(AUGMENT, **change)


def test_every_offset_of_a_crop_lies_within_the_image() -> None:
    for side_px in (CROP_PX, CROP_PX + 1, 256):
        fitting = side_px - CROP_PX + 1
        replace(AUGMENT, crop_offsets=fitting).check_side(side_px, CROP_PX)
        with pytest.raises(ValueError, match=f"crop_offsets: must be at most {fitting} for images of {side_px} pixels"):
            replace(AUGMENT, crop_offsets=fitting + 1).check_side(side_px, CROP_PX)


def test_the_center_crop_needs_room_for_itself_alone() -> None:
    centered = replace(AUGMENT, crop="center", crop_offsets=33)
    centered.check_side(CROP_PX, CROP_PX)
    with pytest.raises(ValueError, match=f"the images have {CROP_PX - 1} a side"):
        centered.check_side(CROP_PX - 1, CROP_PX)


def test_flipped_crops_count_where_training_flips() -> None:
    assert AUGMENT.protocols == ("center", "ten")
    assert replace(AUGMENT, flip=False).protocols == ("center", "five", "flipped", "ten")


def test_reading_a_configuration_imports_no_torch() -> None:
    program = "import sys, alexnet.loading.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)
