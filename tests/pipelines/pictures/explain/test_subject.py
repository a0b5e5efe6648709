"""What training did to a picture."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.errors import DataError
from pipelines.config import params
from pipelines.pictures.explain.subject import Subject, best_classes, read_training, training_crops
from pipelines.pictures.explain.trace import trace
from tests.pipelines.pictures.explain.test_trace import IMAGE, pretrained
from tests.support.stage_folder import PARAMS
from tests.support.trained_folder import PIXELS


def test_training_crops_are_those_of_params_yaml(tmp_path: Path) -> None:
    tree = params.load_tree(PARAMS)
    PIXELS.write(tmp_path / "pixels.npz")
    plain = Subject(IMAGE, "x", pretrained(), "m", read_training(tree, tmp_path / "missing.npz"))
    crops = training_crops(plain)
    assert len(crops) == 8
    windows = IMAGE.unfold(0, 224, 1).unfold(1, 224, 1)  # top, left, channels, 224, 224
    places = [(windows[..., 0, 0] == torch.from_numpy(crop[0, 0])).all(2).nonzero().tolist() for crop in crops]
    assert all(
        any(np.array_equal(windows[top, left].permute(1, 2, 0).numpy(), crop) for top, left in found)
        for crop, found in zip(crops, places, strict=True)
    )
    tree["train"]["augment"]["color_noise"]["std"] = 0.5
    noisy = training_crops(Subject(IMAGE, "x", pretrained(), "m", read_training(tree, tmp_path / "pixels.npz")))
    assert not np.array_equal(noisy[0], crops[0])
    assert training_crops(Subject(IMAGE, "x", pretrained(), "m")) == []


def test_what_is_no_params_yaml_is_refused() -> None:
    with pytest.raises(DataError, match=r"params.yaml: has no train.augment that this version reads"):
        read_training({"train": {}}, Path("none"))


def test_the_five_best_classes_come_with_what_each_tower_adds() -> None:
    subject = Subject(IMAGE, "x", pretrained(), "m")
    best = best_classes(subject, trace(subject.model, IMAGE))
    assert len(best) == 3
    assert best[0]["probability"] >= best[1]["probability"]
    assert len(best[0]["logits"]) == 2
