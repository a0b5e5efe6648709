"""From an image file to a shard's form (section 2): the shorter side becomes `side_px`, the central square is cut out, JPEG.

The square is cut out of the source and only that is resized: the same picture for less work.
"""

import threading
from typing import Literal

import numpy as np
import simplejpeg
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from jaxtyping import UInt8
from PIL import Image

from alexnet.images.inspect import large_image_lock, open_image

Filter = Literal["triangle", "area"]
_BLOCK_MEAN_PX = 1 << 23  # pixels above which Pillow's images are shrunk by the mean of blocks before they are resized
_STRIP_PX = 256  # a multiple of every shrink factor

_thread = threading.local()  # a resizer keeps buffers, so every thread has its own


def prepare(data: bytes, side_px: int, resize_filter: Filter) -> UInt8[np.ndarray, "side side 3"]:
    """The central square of an image file that `inspect_image` finds readable, as RGB; see `decode` and `resize`."""
    return resize(decode(data, min_side_px=2 * side_px), side_px, resize_filter)


def resize(pixels: UInt8[np.ndarray, "h w 3"], side_px: int, resize_filter: Filter) -> UInt8[np.ndarray, "side side 3"]:
    """The central square, resized to `side_px`; EXIF orientation is not applied.

    Args:
        resize_filter: `triangle` is Pillow's bilinear filter. `area` is the mean of the pixels covered, and bicubic where it
            enlarges, as in the first tools for ImageNet. Both are antialiased.
    """
    height, width = pixels.shape[:2]
    side = min(width, height)
    if width == height == side_px:
        return pixels
    box = CropBox((width - side) / 2, (height - side) / 2, side, side)
    if resize_filter == "triangle":
        kernel = FilterType.bilinear
    else:
        kernel = FilterType.box if side > side_px else FilterType.catmull_rom
    square = ImageData(side_px, side_px, PixelType.U8x3)
    if not hasattr(_thread, "resizer"):
        _thread.resizer = Resizer()
    _thread.resizer.resize(
        ImageData(width, height, PixelType.U8x3, pixels.tobytes()),
        square,
        ResizeOptions(ResizeAlg.convolution(kernel), use_alpha=False, crop_box=box),
    )
    return np.frombuffer(square.get_buffer(), np.uint8).reshape(side_px, side_px, 3)


def encode(pixels: UInt8[np.ndarray, "h w 3"], quality: int) -> bytes:
    """A baseline JPEG with 4:2:0 chroma subsampling; quality is libjpeg's, 1 to 100."""
    jpeg: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
    return jpeg


def decode(data: bytes, min_side_px: int | None = None) -> UInt8[np.ndarray, "h w 3"]:
    """An image file as RGB.

    Args:
        min_side_px: Lets a JPEG come at 1/2, 1/4 or 1/8 of its size while its shorter side stays at least this; libjpeg-turbo
            has no fast path for other fractions, and they blur. Other files shrink only when they are large. None: all pixels.

    Raises:
        Exception: Whatever Pillow raises on a file that it cannot decode.
    """
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        if space in ("CMYK", "YCCK"):
            return _decode_by_pillow(data, min_side_px)
        factor = _shrink_factor(min(height, width), min_side_px)
        with large_image_lock(height * width):
            pixels: UInt8[np.ndarray, "h w 3"] = simplejpeg.decode_jpeg(
                data, "RGB", strict=False, min_height=-(-height // factor), min_width=-(-width // factor), min_factor=factor
            )
    except ValueError:
        return _decode_by_pillow(data, min_side_px)
    return pixels


def _shrink_factor(side_px: int, min_side_px: int | None) -> int:
    if min_side_px is None:
        return 1
    return next((factor for factor in (8, 4, 2) if side_px >= factor * min_side_px), 1)


def _decode_by_pillow(data: bytes, min_side_px: int | None) -> UInt8[np.ndarray, "h w 3"]:
    """Converts to RGB strip by strip: a whole copy of a large image would take more memory than everything else."""
    with open_image(data) as image, large_image_lock(image.width * image.height):
        factor = _shrink_factor(min(image.size), min_side_px) if image.width * image.height > _BLOCK_MEAN_PX else 1
        if factor > 1 and image.draft(None, (image.width // factor, image.height // factor)):
            factor = 1  # the JPEG decoder has shrunk it
        width, height = image.size
        surplus = _surplus_bits(image, data) if image.mode.startswith("I") else 0
        pixels = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
        for top in range(0, height, _STRIP_PX):
            strip = _to_rgb(image.crop((0, top, width, min(top + _STRIP_PX, height))), surplus)
            pixels[top // factor : (top + _STRIP_PX) // factor] = np.asarray(strip.reduce(factor) if factor > 1 else strip)
        return pixels


def _surplus_bits(image: Image.Image, data: bytes) -> int:
    """How many bits of a channel lie below the upper 8: of those that PNG's sBIT says are used, else that the file does use.

    Cameras keep 10, 12 or 14 bits in 16, and seldom say so; by the container's 16 their pictures would be black.
    """
    at = data.find(b"sBIT", 0, max(0, data.find(b"IDAT")))
    if at > 0 and 8 <= data[at + 4] <= 16:
        return data[at + 4] - 8
    tops = range(0, image.height, _STRIP_PX)
    strips = (image.crop((0, top, image.width, min(top + _STRIP_PX, image.height))) for top in tops)
    greatest = max(int(np.asarray(strip).max()) for strip in strips)
    return next((bits for bits in (8, 10, 12, 14) if greatest < 1 << bits), 16) - 8


def _to_rgb(image: Image.Image, surplus: int) -> Image.Image:
    if image.mode.startswith("I"):
        # Pillow would clip at 255: keep the upper 8 of the bits that are used instead.
        image = Image.fromarray((np.clip(np.asarray(image, np.int64), 0, 65535) >> surplus).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")
