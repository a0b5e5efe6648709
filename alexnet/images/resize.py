"""One image made ready for a shard: shorter side to side_px, then the central square, RGB, JPEG (section 2).

Cutting the square out of the source and resizing only that gives the same picture for less work.
"""

import threading
from typing import Literal

import numpy as np
import simplejpeg
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from jaxtyping import UInt8
from PIL import Image

from alexnet.images.inspect import one_at_a_time, open_image

Filter = Literal["triangle", "area"]
_MANY_PX = 1 << 23  # 8 megapixels; above it the mean of blocks stands for them
_STRIP_PX = 256  # a multiple of every factor

_own = threading.local()  # a resizer keeps buffers, so every thread has one of its own


def prepare(data: bytes, side_px: int, by: Filter) -> UInt8[np.ndarray, "side side 3"]:
    """The central square of an image file that `look` could decode."""
    return resize(decode(data, at_least_px=2 * side_px), side_px, by)


def resize(pixels: UInt8[np.ndarray, "h w 3"], side_px: int, by: Filter) -> UInt8[np.ndarray, "side side 3"]:
    """The central square, of another size.

    triangle is what Pillow calls bilinear; area averages, and is cubic where it enlarges, as the field's first tools were.
    Both are antialiased. EXIF orientation is not applied.
    """
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

    Other fractions have no fast path in libjpeg-turbo and blur. Other files come smaller only when they have many pixels.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        if space in ("CMYK", "YCCK"):
            return _decode_other(data, at_least_px)
        factor = _factor(min(height, width), at_least_px)
        least = {"min_height": -(-height // factor), "min_width": -(-width // factor), "min_factor": factor}
        with one_at_a_time(height * width):
            pixels: UInt8[np.ndarray, "h w 3"] = simplejpeg.decode_jpeg(data, "RGB", strict=False, **least)
    except ValueError:
        return _decode_other(data, at_least_px)
    return pixels


def _factor(side_px: int, at_least_px: int | None) -> int:
    if at_least_px is None:
        return 1
    return next((factor for factor in (8, 4, 2) if side_px >= factor * at_least_px), 1)


def _decode_other(data: bytes, at_least_px: int | None) -> UInt8[np.ndarray, "h w 3"]:
    """What Pillow decodes, made RGB strip by strip: a whole copy of a large image takes more memory than all else together."""
    with open_image(data) as image, one_at_a_time(image.width * image.height):
        factor = _factor(min(image.size), at_least_px) if image.width * image.height > _MANY_PX else 1
        if factor > 1 and image.draft(None, (image.width // factor, image.height // factor)):
            factor = 1  # the decoder itself shrinks; only JPEG's can
        width, height = image.size
        pixels = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
        for top in range(0, height, _STRIP_PX):
            strip = _rgb(image.crop((0, top, width, min(top + _STRIP_PX, height))))
            pixels[top // factor : (top + _STRIP_PX) // factor] = np.asarray(strip.reduce(factor) if factor > 1 else strip)
        return pixels


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        # Pillow would clip 16 bits at 255: keep the upper 8 instead.
        image = Image.fromarray((np.clip(np.asarray(image, np.int64), 0, 65535) >> 8).astype(np.uint8))
    return image.convert("RGB")


def _kernel(by: Filter, shrinks: bool) -> FilterType:
    if by == "triangle":
        return FilterType.bilinear
    return FilterType.box if shrinks else FilterType.catmull_rom


def _resizer() -> Resizer:
    if not hasattr(_own, "resizer"):
        _own.resizer = Resizer()
    resizer: Resizer = _own.resizer
    return resizer
