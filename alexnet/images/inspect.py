"""One image as it came: what it is, and what is wrong with it. Faults are values; stopping is the stage's decision."""

import io
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, get_args

import simplejpeg
from PIL import Image, UnidentifiedImageError

Kind = Literal[
    "empty",
    "not_an_image",
    "truncated",
    "bomb",
    "unknown_class",
    "conflicting",
    "leaked",
    "duplicate",
    "tiny",
    "extreme_aspect",
    "damaged",
    "wrong_format",
    "cmyk",
    "deep",
    "alpha",
    "palette",
    "grey",
    "exif_damaged",
    "exif_rotated",
]
Policy = Literal["ignore", "repair", "drop", "stop"]
KINDS: tuple[Kind, ...] = get_args(Kind)  # the worst first
POLICIES: tuple[Policy, ...] = get_args(Policy)  # the strictest last
MEANINGS: dict[Kind, str] = {
    "empty": "a file of no bytes",
    "not_an_image": "not an image of a format that is read",
    "truncated": "an image that breaks off",
    "bomb": "more pixels, or more text inside, than is ever decoded",
    "unknown_class": "a label that the list of classes does not have",
    "conflicting": "the same bytes under two labels",
    "leaked": "the same bytes in both splits",
    "duplicate": "the same bytes again within a split",
    "tiny": "a side too short",
    "extreme_aspect": "a side far longer than the other",
    "damaged": "compressed data with mistakes in them, which still decode",
    "wrong_format": "another format than the name says",
    "cmyk": "printing colors, or another color space than RGB",
    "deep": "16 bits or more a channel",
    "alpha": "transparency, which is left out",
    "palette": "colors from a palette",
    "grey": "no colors",
    "exif_damaged": "EXIF that cannot be read",
    "exif_rotated": "an EXIF orientation, which is not applied",
}
FORMATS = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM")
SUFFIXES = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".png": "PNG",
    ".gif": "GIF",
    ".bmp": "BMP",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".ppm": "PPM",
    ".pgm": "PPM",
}
_NO_PIXELS: frozenset[Kind] = frozenset({"empty", "not_an_image", "truncated", "bomb"})
UNDECODED: frozenset[Kind] = frozenset({"not_an_image", "truncated", "bomb", "damaged"})  # may be a link's fault, not a file's
_COLORS: dict[Kind, tuple[str, ...]] = {
    "cmyk": ("CMYK", "YCbCr", "LAB", "HSV"),
    "deep": ("I", "I;16", "I;16B", "I;16L", "I;16N"),
    "alpha": ("RGBA", "RGBa", "LA", "La", "PA"),
    "palette": ("P",),
    "grey": ("L", "1"),
}
_MAGIC = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")

_WEIGHTS = {"WEBP": 2}  # its decoder holds four pictures at a time
_LARGE_PX = 4_000_000
_large = threading.Lock()


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
    """What counts as a fault of an image, and what is done about each kind.

    ignore: no fault. repair: used, converted to RGB. drop: left out. stop: the stage fails.
    """

    min_side_px: int
    max_aspect: float
    max_pixels: int
    counts: CountsConfig
    policy: dict[Kind, Policy]

    def __post_init__(self) -> None:
        if self.min_side_px < 1:
            raise ValueError(f"min_side_px: must be at least 1, got {self.min_side_px}")
        if self.max_aspect < 1:
            raise ValueError(f"max_aspect: must be at least 1, got {self.max_aspect}")
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels: must be at least 1, got {self.max_pixels}")
        if missing := [kind for kind in KINDS if kind not in self.policy]:
            raise ValueError(f"policy: missing {', '.join(missing)}")
        for kind in (*sorted(_NO_PIXELS), "unknown_class"):
            if self.policy[kind] not in ("drop", "stop"):
                raise ValueError(
                    f"policy.{kind}: must be drop or stop, for there is nothing to repair; got {self.policy[kind]!r}"
                )

    def worst(self, kinds: set[Kind]) -> Kind | None:
        """The kind that decides: of the strictest policy, then the first in KINDS; None if all are ignored."""
        seen = [kind for kind in KINDS if kind in kinds and self.policy[kind] != "ignore"]
        return max(seen, key=lambda kind: POLICIES.index(self.policy[kind]), default=None)


@dataclass(frozen=True)
class Look:
    """What one file turned out to be. Sizes in pixels, 0 where unknown; `format` and `mode` are Pillow's words."""

    width: int
    height: int
    mode: str
    format: str
    faults: frozenset[Kind]


def look(data: bytes, name: str, config: ValidateConfig) -> Look:
    """Decodes a whole file and says what it is; its name's suffix says what it should be."""
    if not data:
        return Look(0, 0, "", "", frozenset({"empty"}))
    try:
        image = open_image(data)
    except Exception as error:  # noqa: BLE001 - Pillow lets through whatever its parsers meet
        return Look(0, 0, "", "", frozenset({_unopened(data, error)}))
    with image:
        width, height = image.size
        kind = "JPEG" if image.format == "MPO" else str(image.format)  # MPO: a JPEG with further pictures behind it
        faults: set[Kind] = set()
        if width * height * _WEIGHTS.get(kind, 1) > config.max_pixels:
            return Look(width, height, image.mode, kind, frozenset({"bomb"}))
        if image.mode == "F":  # nothing says which number is white
            return Look(width, height, image.mode, kind, frozenset({"not_an_image"}))
        with one_at_a_time(width * height):
            if fault := _decode_fault(image, data, kind):
                faults.add(fault)
    if min(width, height) < config.min_side_px:
        faults.add("tiny")
    if max(width, height) > config.max_aspect * min(width, height):
        faults.add("extreme_aspect")
    if kind != SUFFIXES.get(suffix(name), kind):
        faults.add("wrong_format")
    faults |= {fault for fault, modes in _COLORS.items() if image.mode in modes}
    if fault := _exif_fault(image.info.get("exif")):
        faults.add(fault)
    return Look(width, height, image.mode, kind, frozenset(faults))


def open_image(data: bytes) -> Image.Image:
    """Reads the header of an image file; nothing is decoded yet, and the size may be any.

    `Image.open` would compare the size with `Image.MAX_IMAGE_PIXELS`, a limit of the whole process: it may be the host
    program's, so it is not changed here, and a warning cannot be silenced in one thread alone. Callers check the size against
    their own limit before they decode. (Pillow's WebP plugin alone still refuses more than twice the process's limit.)

    Raises:
        UnidentifiedImageError: None of FORMATS.
        Exception: Whatever Pillow's parsers raise on a damaged header.
    """
    Image.init()
    for name in FORMATS:
        factory, accepts = Image.OPEN[name]
        if accepts is None or accepts(data[:16]) is True:
            try:
                return factory(io.BytesIO(data), "")
            except (SyntaxError, IndexError, TypeError, struct.error):  # what plugins raise on another format's header
                continue
    raise UnidentifiedImageError(f"cannot identify an image of {len(data):,} bytes")


def suffix(name: str) -> str:
    """The name's last suffix in lower case, with its dot; empty if there is none."""
    stem, dot, last = name.rpartition("/")[2].rpartition(".")
    return f".{last.lower()}" if dot and stem else ""


def _unopened(data: bytes, error: Exception) -> Kind:
    """Why a file could not even be opened."""
    if isinstance(error, Image.DecompressionBombError) or "too large" in str(error):
        return "bomb"
    return "truncated" if data.startswith(_MAGIC) else "not_an_image"


@contextmanager
def one_at_a_time(pixels: int) -> Iterator[None]:
    """Lets threads decode small images side by side, and large ones in turn: memory does not grow with the threads."""
    if pixels <= _LARGE_PX:
        yield
        return
    with _large:
        yield


def _decode_fault(image: Image.Image, data: bytes, kind: str) -> Kind | None:
    """Decodes the whole file. A JPEG comes at an eighth of its size: all its bits are read; what is left out cannot fail."""
    is_plain = kind == "JPEG" and image.mode in ("RGB", "L")
    if is_plain:
        try:
            simplejpeg.decode_jpeg(data, "GRAY", min_height=1, min_width=1, min_factor=8)
        except ValueError as warning:  # strict: what libjpeg only warns of is raised too
            if "Premature end" in str(warning):
                return "truncated"
        else:
            return None
    try:
        if kind == "JPEG":
            image.draft(None, (max(1, image.width // 8), max(1, image.height // 8)))
        image.load()
    except Exception as error:  # noqa: BLE001 - as above
        return "bomb" if "too large" in str(error) else "truncated"
    return "damaged" if is_plain else None


def _exif_fault(exif: bytes | None) -> Kind | None:
    """Reads the first directory of EXIF by hand: Pillow's reader warns on a channel that threads share."""
    if not exif:
        return None
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    try:
        if order is None:
            return "exif_damaged"
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        entries = [struct.unpack_from(order + "HHII", tiff, start + 2 + 12 * i) for i in range(count)]
    except struct.error:
        return "exif_damaged"
    for i, (tag, _, _, _) in enumerate(entries):
        if tag == 0x0112:
            (turn,) = struct.unpack_from(order + "H", tiff, start + 2 + 12 * i + 8)
            if turn > 1:
                return "exif_rotated"
    sizes = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
    ends = [place + count * sizes.get(type_, 1) for _, type_, count, place in entries if count * sizes.get(type_, 1) > 4]
    return "exif_damaged" if any(end > len(tiff) for end in ends) else None
