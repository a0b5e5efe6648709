"""Responses as pixels."""

import base64
import io

import numpy as np
import torch
from PIL import Image

from pipelines.pictures.explain import sheets


def test_maps_are_laid_out_in_rows_with_transparent_lines() -> None:
    maps = torch.zeros((5, 4, 4))
    maps[3] = 1
    drawn = sheets.sheet(maps, 2)
    assert drawn.shape == (3 * 5 - 1, 2 * 5 - 1, 4)
    assert (drawn[5:9, 5:9, :3].astype(int).sum(2) > 600).all()  # map 3 is bright
    assert (drawn[:4, :4, :3].astype(int).sum(2) < 20).all()
    assert (drawn[4, :, 3] == 0).all()
    assert (drawn[10:14, 5:9, 3] == 0).all()  # there is no sixth map


def test_signed_values_are_blue_below_zero_and_red_above() -> None:
    below, zero, above = sheets.colored(torch.tensor([[-1.0, 0, 1]]), 1, signed=True)[0].astype(int)
    assert below[2] > below[0]
    assert above[0] > above[2]
    assert zero.min() > 240


def test_one_outlier_does_not_darken_the_rest() -> None:
    values = torch.ones(10_000)
    values[7] = 1e6
    assert sheets.limit(values) == 1
    assert sheets.limit(torch.zeros(4)) == 1


def test_units_fill_a_grid_and_a_png_is_what_was_drawn() -> None:
    grid = sheets.unit_grid(torch.arange(10.0), 4)
    assert grid.shape == (3, 4, 3)
    data = base64.b64decode(sheets.data_uri(grid).partition(",")[2])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), grid)
