"""From an image file to a shard's form (section 2): the shorter side becomes `side_px`, the central square is cut out, JPEG.

The square is cut out of the source and only that is resized: the same picture for less work.
"""

import sys
import threading
from typing import Any, Literal, cast

import numpy as np
import simplejpeg
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from jaxtyping import Int64, UInt8
from PIL import Image

from alexnet.images.container import bits_per_channel, read_exif, tiff_orientation, xmp_orientation
from alexnet.images.inspect import large_image_lock, open_image

Filter = Literal["triangle", "area"]
_BLOCK_MEAN_PX = 1 << 23  # pixels above which Pillow's images are shrunk by the mean of blocks before they are resized
_STRIP_PX = 256  # a multiple of every shrink factor

_OTHER = "B" if sys.byteorder == "little" else "L"
# Pillow's names for the order of the bytes of which it takes the upper one, and the order in which that is the lower one.
_LOWER = {
    f"{mode};16{order}": f"{mode};16{other}"
    for mode in ("RGB", "RGBA", "RGBX")
    for order, other in (("L", "B"), ("B", "L"), ("N", _OTHER))
}

_thread = threading.local()  # a resizer keeps buffers, so every thread has its own


def prepare(data: bytes, side_px: int, resize_filter: Filter, orientation: int = 1) -> UInt8[np.ndarray, "side side 3"]:
    """The central square of an image file that `inspect_image` finds readable, as RGB; see `decode`, `resize` and `turn`."""
    return turn(resize(decode(data, min_side_px=2 * side_px), side_px, resize_filter), orientation)


def turn(pixels: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "h2 w2 3"]:
    """The picture as it is meant, from the pixels as they are stored, by an orientation of EXIF, 1 to 8."""
    if orientation > 4:
        pixels = pixels.swapaxes(0, 1)
    upside_down, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return np.ascontiguousarray(pixels[:: -1 if upside_down else 1, :: -1 if mirrored else 1])


def orientation_of(data: bytes) -> int:
    """The orientation of an image file by EXIF, else by XMP, 1 to 8, 1 without one. Raises as `open_image`."""
    with open_image(data) as image:
        stored = tiff_orientation(image)
        if image.format == "PNG":
            image.load()  # both may come after the pixels
        said = stored if image.format == "TIFF" else read_exif(image.info.get("exif")).orientation
        return said or xmp_orientation(image)


def resize(pixels: UInt8[np.ndarray, "h w 3"], side_px: int, resize_filter: Filter) -> UInt8[np.ndarray, "side side 3"]:
    """The central square, resized to `side_px`.

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
    """An image file as RGB, as it is stored: no orientation is applied.

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
        orientation = tiff_orientation(image)
        strips = _Strips(image, data)
        pixels = np.empty((-(-height // factor), -(-width // factor), 3), np.uint8)
        for top in range(0, height, _STRIP_PX):
            strip = strips.rgb(top)
            pixels[top // factor : (top + _STRIP_PX) // factor] = np.asarray(strip.reduce(factor) if factor > 1 else strip)
    return turn(pixels, {6: 8, 8: 6}.get(orientation, orientation))  # back


class _Strips:
    """The rows of a decoded image, some at a time, as RGB of 8 bits: the upper 8 of the bits that are used."""

    def __init__(self, image: Image.Image, data: bytes) -> None:
        self._image, self._low = image, None
        image.info.pop("transparency", None)  # it is left out, of which Pillow would warn
        self._surplus = 0
        if image.mode.startswith("I"):
            self._surplus = self._surplus_bits(data)
        elif bits_per_channel(image, data) == 16 and image.mode in ("RGB", "RGBA"):  # of which Pillow keeps the upper 8
            surplus = self._surplus_bits(data)
            if surplus < 8 and (low := _with_lower_bytes(data)):
                self._surplus, self._low = surplus, low

    def rgb(self, top: int) -> Image.Image:
        """A strip of rows, from this one on."""
        strip = _crop(self._image, top)
        if self._image.mode.startswith("I"):
            # Pillow would clip at 255.
            return _upper(np.asarray(strip, np.int64), self._surplus).convert("RGB")
        if self._low:
            high, low = (np.asarray(each.convert("RGB"), np.int64) for each in (strip, _crop(self._low, top)))
            return _upper(high << 8 | low, self._surplus)
        return strip.convert("RGB")

    def _surplus_bits(self, data: bytes) -> int:
        """How many bits of a channel lie below the upper 8: of those that PNG's sBIT says are used, else that the file uses.

        Cameras keep 10, 12 or 14 bits in 16, and seldom say so; by the container's 16 their pictures would be black.
        """
        at = data.find(b"sBIT", 0, max(0, data.find(b"IDAT")))
        if at > 0 and 8 <= data[at + 4] <= 16:
            return data[at + 4] - 8
        has_upper_alone = not self._image.mode.startswith("I")
        strips = (np.asarray(_crop(self._image, top))[..., :3] for top in range(0, self._image.height, _STRIP_PX))
        greatest = max(int(strip.max()) for strip in strips) << 8 * has_upper_alone
        return next((bits for bits in (8, 10, 12, 14, 16) if greatest < 1 << bits), greatest.bit_length()) - 8


def _crop(image: Image.Image, top: int) -> Image.Image:
    return image.crop((0, top, image.width, min(top + _STRIP_PX, image.height)))


def _upper(values: Int64[np.ndarray, "h w *channels"], surplus: int) -> Image.Image:
    return Image.fromarray((values >> surplus).clip(0, 255).astype(np.uint8))


def _with_lower_bytes(data: bytes) -> Image.Image | None:
    """An image of 16 bits a channel, opened so that the lower byte of each is decoded; None where Pillow has no way to."""
    image: Any = open_image(data)
    tiles = []
    for tile in image.tile:
        whole = tile.args if isinstance(tile.args, tuple) else (tile.args,)
        rawmode, *rest = whole
        if rawmode == "LA;16B":  # four bytes: grey's upper and lower one, and those of transparency
            image.tile = [tile._replace(args="RGBA")]
            return Image.merge("RGB", [image.getchannel("G")] * 3)
        if rawmode not in _LOWER:
            return None
        tiles.append(tile._replace(args=(_LOWER[rawmode], *rest) if rest else _LOWER[rawmode]))
    image.tile = tiles
    return cast("Image.Image", image)
