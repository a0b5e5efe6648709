"""The pictures of an evaluation."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.inference.metrics import TopK
from pipelines.evaluation import plots
from pipelines.evaluation.predictions import Predictions


def test_pictures_show_mistakes_after_what_is_right() -> None:
    keys = [f"k{i}" for i in range(40)]
    probabilities = np.ones((40, 1), np.float32)
    some_wrong = TopK(np.where(np.arange(40)[:, None] % 4 == 0, 1, 0), probabilities)
    none_wrong = TopK(np.zeros((40, 1), np.int64), probabilities)
    predictions = Predictions(keys, np.zeros(40, np.int64), {"center": some_wrong, "ten": none_wrong})
    assert [at % 4 == 0 for at in plots.choose(predictions, "center")] == [False] * 5 + [True] * 3
    assert len(plots.choose(predictions, "ten")) == 8
    all_wrong = Predictions(keys, np.full(40, 7), {"center": some_wrong})
    assert len(plots.choose(all_wrong, "center")) == 8


@pytest.mark.parametrize("classes", [2, 31])
def test_confusions_are_drawn_for_few_classes_and_for_many(tmp_path: Path, classes: int) -> None:
    matrix = np.random.default_rng(1).integers(0, 9, (classes, classes))
    plots.draw_confusion(tmp_path / "one.png", matrix, [f"a class, number {i}" for i in range(classes)], "ten crops")
    with Image.open(tmp_path / "one.png") as image:
        assert image.width > 300
        assert "Software" not in image.info


def test_one_towers_kernels_in_color_are_drawn(tmp_path: Path) -> None:
    weight = torch.randn((20, 3, 11, 11), generator=torch.Generator().manual_seed(1))
    plots.draw_kernels(tmp_path / "kernels.png", weight, 1, torch.rand(8, 8, 3) * 255)
    with Image.open(tmp_path / "kernels.png") as image:
        assert len(image.getcolors(1 << 20) or ()) > 100
