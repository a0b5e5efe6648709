import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from pipelines.cli import pictures


@pytest.mark.parametrize("draw", [pictures.jpeg, pictures.rotated_jpeg, pictures.damaged_jpeg])
def test_equal_seeds_draw_equal_files_and_others_differ(draw: Callable[[int], bytes]) -> None:
    assert draw(1) == draw(1) != draw(2)


def test_jpeg_keeps_a_drawn_image() -> None:
    image = pictures.draw_image(3)
    decoded = Image.open(io.BytesIO(pictures.encode_image(image)))
    assert np.abs(np.asarray(decoded, float) - np.asarray(image, float)).mean() < 3


def test_a_huge_png_has_its_size_in_the_header_alone() -> None:
    data = pictures.huge_png(9_000)
    assert len(data) < 100
    assert Image.open(io.BytesIO(data)).size == (9_000, 9_000)
