"""Confusions of few classes, and of many."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipelines.pictures.confusion import draw_confusion


@pytest.mark.parametrize(("classes", "title"), [(2, "Confusion matrix of"), (31, "The most frequent confusions of 31 classes")])
def test_confusions_are_drawn_for_few_classes_and_for_many(tmp_path: Path, classes: int, title: str) -> None:
    matrix = np.random.default_rng(1).integers(0, 9, (classes, classes))
    draw_confusion(tmp_path / "one", matrix, [f"a $class, number {i}" for i in range(classes)], "center crop", "test")
    with Image.open(tmp_path / "one.png") as image:
        assert image.width >= 1000
        assert "Software" not in image.info
    svg = (tmp_path / "one.svg").read_text()
    assert f"<title>{title}" in svg
    assert " test images; " in svg
