from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet.prepare import Filter, decode, encode, prepare
from tests import pictures


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else 99.0


def twin(data: bytes, side_px: int) -> np.ndarray:
    """The usual script, with the square cut out at the same places: Pillow's antialiased bilinear filter."""
    import io

    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BILINEAR, box=box))


@settings(deadline=None, max_examples=25)
@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 9))
def test_the_square_is_the_same_as_by_pillow(width: int, height: int, seed: int) -> None:
    data = pictures.file_of(pictures.picture(seed, width, height), "PNG")
    assert psnr(prepare(data, 64, "triangle"), twin(data, 64)) > 45


@pytest.mark.parametrize("by", ["triangle", "area"])
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(by: Filter) -> None:
    data = pictures.jpeg(2, 1300, 1100)
    assert decode(data, 128).shape == (138, 163, 3)  # an eighth
    assert decode(data).shape == (1100, 1300, 3)
    assert psnr(prepare(data, 64, by), twin(data, 64)) > 40


def test_thin_lines_are_antialiased() -> None:
    lines = np.zeros((512, 512, 3), np.uint8)
    lines[::2] = 255
    data = pictures.file_of(Image.fromarray(lines), "PNG")
    for by in get_args(Filter):
        assert np.abs(prepare(data, 64, by).astype(int) - 128).max() <= 5


def test_area_is_the_mean_where_it_shrinks_by_a_whole_number() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = pictures.file_of(Image.fromarray(pixels), "PNG")
    mean = pixels.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(prepare(data, 16, "area") - mean).max() <= 1


def test_every_mode_becomes_rgb() -> None:
    image = pictures.picture(4, 80, 60)
    whole = prepare(pictures.file_of(image, "PNG"), 32, "triangle")
    for data in (
        pictures.file_of(image.convert("RGBA"), "PNG"),
        pictures.file_of(image.convert("CMYK"), quality=100),
        pictures.file_of(image, "BMP"),
        pictures.file_of(image, "WEBP", lossless=True),
    ):
        assert psnr(prepare(data, 32, "triangle"), whole) > 30


def test_sixteen_bits_keep_their_upper_eight() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    data = pictures.file_of(Image.fromarray(ramp), "PNG")
    assert np.array_equal(decode(data)[:, :, 0], (ramp >> 8).astype(np.uint8))


def test_exif_orientation_is_not_applied() -> None:
    assert decode(pictures.rotated(1)).shape == (48, 64, 3)


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = pictures.picture(5, 64, 64)
    assert np.array_equal(prepare(pictures.file_of(image, "PNG"), 64, "triangle"), np.asarray(image))


def test_an_encoded_image_is_nearly_the_same() -> None:
    pixels = np.asarray(pictures.picture(6, 64, 64))
    assert psnr(decode(encode(pixels, 95)), pixels) > 35
    assert encode(pixels, 95) == encode(pixels.copy(), 95)
