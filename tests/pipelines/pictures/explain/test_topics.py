"""What is done to a picture and its values, in pictures."""

import numpy as np
import torch

from alexnet.loading.augment import center
from pipelines.config import params
from pipelines.pictures.explain import topics
from pipelines.pictures.explain.subject import Subject, Training
from pipelines.pictures.explain.trace import trace
from tests.pipelines.pictures.explain.test_trace import IMAGE, pretrained
from tests.support.stage_folder import PARAMS
from tests.support.trained_folder import PIXELS

SUBJECT = Subject(IMAGE, "noise", pretrained(), "model", Training(params.load(PARAMS).train.augment, PIXELS))


def test_ten_crops_are_the_corners_the_center_and_their_mirrors() -> None:
    crops = topics.ten_crops(SUBJECT)
    assert len(crops) == 10
    assert np.array_equal(crops[0], IMAGE[:224, :224].numpy())
    assert np.array_equal(crops[8], center(IMAGE, 224).numpy())
    assert np.array_equal(crops[9], crops[8][:, ::-1])


def test_color_noise_shifts_a_whole_crop() -> None:
    crops = topics.color_noise(SUBJECT, draws=3)
    inside = center(IMAGE, 224).numpy().astype(int)
    for crop in crops:
        shift = (crop.astype(int) - inside)[(crop > 0).all(2) & (crop < 255).all(2)]
        assert np.abs(shift - np.median(shift, 0)).max() <= 1
    assert not np.array_equal(crops[0], crops[1])
    assert topics.color_noise(Subject(IMAGE, "noise", pretrained(), "model")) == []


def test_masks_leave_about_half_of_the_units_as_they_were() -> None:
    traced = trace(SUBJECT.model, IMAGE)
    traced.values["fc6.relu"] = torch.ones(32)
    found = topics.dropped(SUBJECT, traced)
    assert found is not None
    name, grids = found
    assert (name, len(grids)) == ("fc6", 4)
    kept = [int((grid == grids[0]).all(2).sum()) for grid in grids]
    assert kept[0] == 32
    assert all(4 < each < 28 for each in kept[1:])
    assert topics.dropped(Subject(IMAGE, "noise", pretrained("no-dropout"), "model"), traced) is None


def test_windows_and_functions_are_drawn() -> None:
    for drawn in (topics.pooling_windows(3, 2), topics.nonlinearities()):
        assert drawn.startswith(b"<?xml")
