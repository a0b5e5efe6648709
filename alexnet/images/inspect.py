"""What an image file is and what is wrong with it. A fault is a value, not an error: the stage decides what to do about it."""

import io
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Literal, get_args

import simplejpeg
from PIL import Image, UnidentifiedImageError

from alexnet.images.container import (
    bits_per_channel,
    hide_xmp,
    is_baseline_jpeg,
    num_frames,
    read_exif,
    read_profile,
    tiff_orientation,
    xmp_orientation,
)

_Unreadable = Literal["empty", "not_an_image", "truncated", "bomb"]
_InDataset = Literal["unknown_class", "conflicting", "leaked", "duplicate"]  # needs the labels, or other images, to be seen
_InPixels = Literal["tiny", "extreme_aspect", "damaged"]
_InFormat = Literal[
    "wrong_format", "cmyk", "deep", "alpha", "palette", "grey", "exif_damaged", "exif_rotated", "frames", "profile"
]
Fault = Literal[_Unreadable, _InDataset, _InPixels, _InFormat]
Policy = Literal["ignore", "repair", "drop", "stop"]
_POLICY_OF = dict.fromkeys((*get_args(_Unreadable), "unknown_class"), Literal["drop", "stop"])  # nothing of them can be used
FAULTS: tuple[Fault, ...] = get_args(Fault)  # the worst first
POLICIES: tuple[Policy, ...] = get_args(Policy)  # the strictest last
FAULT_MEANINGS: dict[Fault, str] = {
    "empty": "a file of no bytes",
    "not_an_image": "not an image of a format that is read",
    "truncated": "an image that breaks off",
    "bomb": "more pixels, or more text inside, than is ever decoded",
    "unknown_class": "a label that the list of classes does not have",
    "conflicting": "the same bytes under two labels",
    "leaked": "the same bytes in more than one split",
    "duplicate": "the same bytes again within a split",
    "tiny": "a side too short",
    "extreme_aspect": "a side far longer than the other",
    "damaged": "compressed data with mistakes in them, which still decode",
    "wrong_format": "another format than the name says",
    "cmyk": "printing colors, or another color space than RGB",
    "deep": "more than 8 bits a channel",
    "alpha": "transparency, which is left out",
    "palette": "colors from a palette",
    "grey": "no colors",
    "exif_damaged": "EXIF that cannot be read",
    "exif_rotated": "an orientation in EXIF or XMP, which is applied only where validate.orientation says so",
    "frames": "several pictures in a file, of which the first is used",
    "profile": "an ICC profile whose colors are not sRGB's, which is not applied",
}
DECODE_FAULTS: frozenset[Fault] = frozenset({"not_an_image", "truncated", "bomb", "damaged"})  # a bad transfer looks the same
_SUFFIXES = {  # the usual first; HEIC is not here, for no library of the lock decodes it
    "JPEG": ".jpg .jpeg .jpe .jfif .jif",
    "PNG": ".png .apng",
    "GIF": ".gif",
    "BMP": ".bmp .dib",
    "WEBP": ".webp",
    "TIFF": ".tif .tiff",
    "PPM": ".ppm .pgm .pbm .pnm",
    "AVIF": ".avif",
    "JPEG2000": ".jp2 .j2k .jpf .jpx .j2c .jpc",
}
FORMATS = tuple(_SUFFIXES)
SUFFIXES = {each: name for name, suffixes in _SUFFIXES.items() for each in suffixes.split()}
_MODES: dict[Fault, tuple[str, ...]] = {  # Pillow's modes that are faults
    "cmyk": ("CMYK", "YCbCr", "LAB", "HSV"),
    "deep": ("I", "I;16", "I;16B", "I;16L", "I;16N"),
    "alpha": ("RGBA", "RGBa", "LA", "La", "PA"),
    "palette": ("P",),
    "grey": ("L", "1"),
}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*", b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")
_TRANSPOSED = 5  # the orientations from this one on exchange width and height
_COPIES = {"WEBP": 2, "AVIF": 2, "JPEG2000": 4}  # how much more memory these decoders take for a pixel than the others
_LARGE_PX = 4_000_000
_large_image = threading.Lock()


@dataclass(frozen=True)
class Range:
    """A least and a greatest count, each included; null leaves that end open."""

    min: int | None
    max: int | None


@dataclass(frozen=True)
class CountsConfig:
    """How many images a split should have in all and of every class, and how many classes there should be."""

    classes: int | None
    train_images: int | None
    val_images: int | None
    train_per_class: Range
    val_per_class: Range


@dataclass(frozen=True)
class ValidateConfig:
    """What counts as a fault of an image, and what is done about each fault.

    ignore: no fault. repair: used, converted to RGB. drop: left out. stop: the stage fails.
    orientation: whether shards have the pictures as they are meant, or as they are stored.
    """

    min_side_px: int
    max_aspect: float
    max_pixels: int
    counts: CountsConfig
    policy: Annotated[dict[Fault, Policy], _POLICY_OF]
    orientation: Literal["apply", "record"]

    def __post_init__(self) -> None:
        for name in ("min_side_px", "max_aspect", "max_pixels"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if missing := [fault for fault in FAULTS if fault not in self.policy]:
            raise ValueError(f"policy: missing {', '.join(missing)}")

    def worst(self, faults: set[Fault]) -> Fault | None:
        """The fault that decides: of the strictest policy, then the first in FAULTS; None if all are ignored."""
        counted = [fault for fault in FAULTS if fault in faults and self.policy[fault] != "ignore"]
        return max(counted, key=lambda fault: POLICIES.index(self.policy[fault]), default=None)


@dataclass(frozen=True)
class ImageReport:
    """What one file is, as its container says.

    width, height: pixels as they are stored, 0 where unknown. mode, format: Pillow's names, empty where unknown. frames:
    pictures in the file. orientation: EXIF's or XMP's, 1 to 8, 1 without one. profile: its ICC profile's name; empty if none.
    """

    width: int
    height: int
    mode: str
    format: str
    faults: frozenset[Fault]
    frames: int = 1
    orientation: int = 1
    profile: str = ""


def inspect_image(data: bytes, name: str, config: ValidateConfig) -> ImageReport:
    """Decodes a whole file and reports what it is; the suffix of its name says which format it should have."""
    if not data:
        return ImageReport(0, 0, "", "", frozenset({"empty"}))
    if not is_baseline_jpeg(data):  # medical devices write 12 bits, or lossless
        return ImageReport(0, 0, "", "", frozenset({"not_an_image"}))
    try:
        image = open_image(data)
    except Exception as error:  # noqa: BLE001 - Pillow's parsers raise anything
        return ImageReport(0, 0, "", "", frozenset({_open_fault(data, error)}))
    with image:
        turned = tiff_orientation(image)
        width, height = image.size if turned < _TRANSPOSED else image.size[::-1]
        file_format = "JPEG" if image.format == "MPO" else str(image.format)  # MPO: a JPEG followed by further pictures
        if width * height * _COPIES.get(file_format, 1) > config.max_pixels:
            return ImageReport(width, height, image.mode, file_format, frozenset({"bomb"}))
        if image.mode == "F":  # nothing says which number is white
            return ImageReport(width, height, image.mode, file_format, frozenset({"not_an_image"}))
        with large_image_lock(width * height):
            decode_fault = _decode_fault(image, data, file_format)
        exif, profile = read_exif(image.info.get("exif")), read_profile(image.info.get("icc_profile"))
        frames = num_frames(image, data)
        orientation = (turned if file_format == "TIFF" else exif.orientation) or xmp_orientation(image)
    checks: dict[Fault, bool] = {
        "tiny": min(width, height) < config.min_side_px,
        "extreme_aspect": max(width, height) > config.max_aspect * min(width, height),
        "wrong_format": file_format != SUFFIXES.get(suffix(name), file_format),
        **{fault: image.mode in modes for fault, modes in _MODES.items()},
        "exif_damaged": exif.is_damaged,
        "exif_rotated": orientation > 1,
        "frames": frames > 1,
        "profile": not profile.is_srgb and image.mode not in _MODES["cmyk"],
    }
    checks["deep"] |= bits_per_channel(image, data) > 8
    checks["alpha"] |= "transparency" in image.info  # kept in a chunk of its own
    found = {decode_fault, *(fault for fault, failed in checks.items() if failed)}
    faults = frozenset(fault for fault in found if fault)
    return ImageReport(width, height, image.mode, file_format, faults, frames, orientation, profile.name)


def open_image(data: bytes) -> Image.Image:
    """Reads the header of an image file; nothing is decoded yet, and the size may be any.

    `Image.open` would compare the size with `Image.MAX_IMAGE_PIXELS`, a limit of the whole process: it may be the host
    program's, so it is not changed here, and a warning cannot be silenced in one thread alone. Callers check the size against
    their own limit before they decode. (Pillow's WebP plugin alone still refuses more than twice the process's limit.)

    Raises:
        UnidentifiedImageError: None of FORMATS.
        Exception: Whatever Pillow's parsers raise on a damaged header.
    """
    Image.preinit()
    for name in FORMATS:
        if name not in Image.OPEN:
            Image.init()  # imports all of the plugins, which take 4 MB
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(data[:16]) is True:
            try:
                image = factory(io.BytesIO(data), "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # what plugins raise on another format's header
                continue
            hide_xmp(image)
            return image
    raise UnidentifiedImageError(f"cannot identify an image of {len(data):,} bytes")


def suffix(name: str) -> str:
    """The name's last suffix in lower case, with its dot; empty if there is none."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return f".{last.lower()}" if dot and stem else ""


@contextmanager
def large_image_lock(num_pixels: int) -> Iterator[None]:
    """Lets threads decode large images only one at a time, so that memory does not grow with their number."""
    if num_pixels <= _LARGE_PX:
        yield
    else:
        with _large_image:
            yield


def _open_fault(data: bytes, error: Exception) -> Fault:
    if isinstance(error, Image.DecompressionBombError) or "too large" in str(error):
        return "bomb"
    return "truncated" if data.startswith(_MAGIC) else "not_an_image"


def _decode_fault(image: Image.Image, data: bytes, file_format: str) -> Fault | None:
    """Decodes the whole file; a JPEG at an eighth of its size, which reads all of its bits and skips arithmetic alone."""
    is_plain_jpeg = file_format == "JPEG" and image.mode in ("RGB", "L")
    if is_plain_jpeg:
        try:
            simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, min_factor=8)
        except ValueError as error:  # also for what libjpeg only warns of
            if "Premature end" in str(error):
                return "truncated"
        else:
            return None
    try:
        if file_format == "JPEG":
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except Exception as error:  # noqa: BLE001 - as above
        return "bomb" if "too large" in str(error) else "truncated"
    return "damaged" if is_plain_jpeg else None
