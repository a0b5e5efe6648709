"""One image made ready for a shard: shorter side to side_px, then the central square, RGB, JPEG (section 2).

Cutting the square out of the source and resizing only that gives the same picture for less work.
"""

import io
import threading
from typing import Literal

import numpy as np
import simplejpeg
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from jaxtyping import UInt8
from PIL import Image

from alexnet.images import FORMATS

Filter = Literal["triangle", "area"]

_own = threading.local()  # a resizer keeps buffers, so every thread has one of its own


def prepare(data: bytes, side_px: int, by: Filter) -> UInt8[np.ndarray, "side side 3"]:
    """The central square of an image file that `look` could decode.

    triangle is what Pillow calls bilinear; area averages, and is cubic where it enlarges, as the field's first tools were.
    Both are antialiased. EXIF orientation is not applied.
    """
    pixels = decode(data, at_least_px=2 * side_px)
    height, width = pixels.shape[:2]
    side = min(width, height)
    if width == height == side_px:
        return pixels
    box = CropBox((width - side) / 2, (height - side) / 2, side, side)
    options = ResizeOptions(ResizeAlg.convolution(_kernel(by, side > side_px)), use_alpha=False, crop_box=box)
    square = ImageData(side_px, side_px, PixelType.U8x3)
    _resizer().resize(ImageData(width, height, PixelType.U8x3, pixels.tobytes()), square, options)
    return np.frombuffer(square.get_buffer(), np.uint8).reshape(side_px, side_px, 3)


def encode(pixels: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """A baseline JPEG, 4:2:0."""
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
    return jpeg


def decode(data: bytes, at_least_px: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """All pixels as RGB; a JPEG may come at 1/2, 1/4 or 1/8 of its size while both sides stay `at_least_px` or longer.

    Other fractions have no fast path in libjpeg-turbo and blur.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        if space in ("CMYK", "YCCK"):
            return _decode_other(data)
        factor = _factor(min(height, width), at_least_px)
        least = {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}
        pixels: UInt8[np.ndarray, "h w 3"] = simplejpeg.decode_jpeg(data, "RGB", strict=False, **least)
    except ValueError:
        return _decode_other(data)
    return pixels


def _factor(side_px: int, at_least_px: int | None) -> int:
    if at_least_px is None:
        return 1
    return next((factor for factor in (8, 4, 2) if side_px >= factor * at_least_px), 1)


def _decode_other(data: bytes) -> UInt8[np.ndarray, "h w 3"]:
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        if image.mode.startswith("I;16") or image.mode == "I":
            # Pillow would clip 16 bits at 255: keep the upper 8 instead.
            grey = (np.clip(np.asarray(image, np.int64), 0, 65535) >> 8).astype(np.uint8)
            return np.repeat(grey[:, :, None], 3, axis=2)
        return np.asarray(image.convert("RGB"))


def _kernel(by: Filter, shrinks: bool) -> FilterType:
    if by == "triangle":
        return FilterType.bilinear
    return FilterType.box if shrinks else FilterType.catmull_rom


def _resizer() -> Resizer:
    if not hasattr(_own, "resizer"):
        _own.resizer = Resizer()
    resizer: Resizer = _own.resizer
    return resizer
