"""What the container of an image file says, whatever a decoder makes of it: bits, pictures, transparency, orientation, colors.

Nothing here raises on damaged data, takes longer than a scan of the file, or keeps more of it than a name.
"""

import io
import re
import struct
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from PIL import Image, ImageCms

_SPACE = rb"(?:\s|#[^\n]*\n)+"
_PPM = re.compile(rb"P[2356]" + _SPACE + rb"\d+" + _SPACE + rb"\d+" + _SPACE + rb"(\d+)")  # width, height, greatest value
_ORIENTATION = 0x0112
_XMP_ORIENTATION = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')  # as Pillow finds it, without a reader of XML
_HIDDEN = "xmp that Pillow does not see"
_SUBFILE_TYPE, _REDUCED_OR_MASK = 254, 1 | 4  # TIFF's tag of a page, and its bits of what is no page of its own
_EXIF_TYPE_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8}
_FRAMES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # JPEG's markers of a frame: SOF0 to SOF15
_DECODED_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)  # sequential and progressive, by Huffman's or arithmetic coding
_MOST_SEGMENTS = 10_000  # before the frame
MOST_FRAMES = 10_000  # that are counted
_MAX_PROFILE_BYTES = 1 << 20
_MAX_NAME = 80  # characters of a profile's name
_SAME = 4  # of 255: sRGB's many editions differ by less, Display P3 and Adobe RGB by more
_COLORS = {  # the colors by which a profile is compared with sRGB
    "RGB": [bytes(color) for color in product((16, 64, 128, 192, 255), repeat=3)],
    "L": [bytes([grey]) for grey in (16, 32, 64, 128, 192, 255)],
}


@dataclass(frozen=True)
class Exif:
    """EXIF's orientation, 1 to 8, 0 where it says none; and whether it can be read."""

    orientation: int
    is_damaged: bool


@dataclass(frozen=True)
class Profile:
    """The name that an ICC profile gives itself, empty if there is no profile, and whether its colors are sRGB's."""

    name: str
    is_srgb: bool


def bits_per_channel(image: Image.Image, data: bytes) -> int:
    """PNG's header, TIFF's tag 258, the greatest value of a PPM, JPEG 2000's SIZ, AVIF's av1C; else 8."""
    if data.startswith(b"\x89PNG"):
        return data[24] if len(data) > 24 else 8
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        return int(max(bits)) if isinstance(bits, tuple) else int(bits)
    if image.format == "PPM" and (found := _PPM.match(data)):
        return int(found[1]).bit_length()
    if image.format == "JPEG2000":
        size = data.find(b"\xff\x4f\xff\x51")  # start of codestream, then SIZ: 38 bytes, then 3 for every channel
        return max(((bits & 0x7F) + 1 for bits in data[size + 42 : size + 43]), default=8) if size >= 0 else 8
    if image.format == "AVIF":
        box = data.find(b"av1C", 0, 1 << 16)
        flags = data[box + 6] if 0 < box < len(data) - 6 else 0
        return (12 if flags & 0x20 else 10) if flags & 0x40 else 8
    return 8


def is_baseline_jpeg(data: bytes) -> bool:
    """Whether a JPEG's frame has 8 bits and is not lossless, as decoders need it; true too of no JPEG, or half of one."""
    at = 2
    for _ in range(_MOST_SEGMENTS if data.startswith(b"\xff\xd8") else 0):
        if len(data) < at + 5 or data[at] != 0xFF:
            break
        if data[at + 1] in _FRAMES:
            return data[at + 1] in _DECODED_FRAMES and data[at + 4] == 8
        at += 1 if data[at + 1] == 0xFF else 2 + int.from_bytes(data[at + 2 : at + 4])
    return True


def num_frames(image: Image.Image, data: bytes) -> int:
    """Pictures in the file, at most 10,000: of an animation, pages of a TIFF, of a stereo camera; previews do not count."""
    if image.format == "GIF":
        return max(1, _gif_frames(data))
    if image.format == "TIFF":
        return max(1, _tiff_pages(data))
    return min(int(getattr(image, "n_frames", 1)), MOST_FRAMES)


def tiff_orientation(image: Image.Image) -> int:
    """The orientation, 1 to 8, by which Pillow turns a TIFF, and no other file, when it decodes it; 0: none. Ask before."""
    orientation = getattr(image, "tag_v2", {}).get(_ORIENTATION, 0) if image.format == "TIFF" else 0
    return int(orientation) if orientation in range(9) else 1


def hide_xmp(image: Image.Image) -> None:
    """Keeps a TIFF's XMP where Pillow does not see it: by an orientation in it alone it would turn pixels, and not the size."""
    if image.format == "TIFF" and "xmp" in image.info:
        image.info[_HIDDEN] = image.info.pop("xmp")


def xmp_orientation(image: Image.Image) -> int:
    """XMP's orientation, 1 to 8, 1 without one. As in Pillow, it counts where neither EXIF nor TIFF's tag says any."""
    xmp = image.info.get("xmp") or image.info.get(_HIDDEN)
    found = _XMP_ORIENTATION.search(xmp) if isinstance(xmp, bytes) else None
    return int(found[1]) if found and found[1] in b"12345678" else 1


def read_exif(exif: bytes | None) -> Exif:
    """Parses the first directory of EXIF. Pillow's parser reports damage by warnings, whose filters all threads share."""
    if not exif:
        return Exif(0, is_damaged=False)
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return Exif(0, is_damaged=True)
    orientation, is_damaged = 0, False
    try:
        (start,) = struct.unpack_from(f"{order}I", tiff, 4)
        (count,) = struct.unpack_from(f"{order}H", tiff, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind, number, offset = struct.unpack_from(f"{order}HHII", tiff, at)
            size = number * _EXIF_TYPE_BYTES.get(kind, 1)
            is_damaged |= size > 4 and offset + size > len(tiff)
            if tag == _ORIENTATION:
                orientation = struct.unpack_from(f"{order}{'I' if kind == 4 else 'H'}", tiff, at + 8)[0] or 1
    except struct.error:
        return Exif(0, is_damaged=True)
    return Exif(orientation, is_damaged) if orientation <= 8 else Exif(1, is_damaged=True)


def read_profile(icc: bytes | None) -> Profile:
    """What an ICC profile is."""
    if not icc:
        return Profile("", is_srgb=True)
    return _profile(icc) if len(icc) <= _MAX_PROFILE_BYTES else Profile("too large to be read", is_srgb=False)


@lru_cache(32)
def _profile(icc: bytes) -> Profile:
    """Compares what the profile makes of some colors with the colors themselves. Most files have one of a few profiles."""
    name = "without a name"
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        said = "".join(letter for letter in ImageCms.getProfileDescription(profile) if letter.isprintable()).strip()
        name = said[:_MAX_NAME] or name
        mode = {"RGB": "RGB", "GRAY": "L"}[profile.profile.xcolor_space.strip()]
        colors = Image.frombytes(mode, (len(_COLORS[mode]), 1), b"".join(_COLORS[mode]))
        intent = ImageCms.Intent.RELATIVE_COLORIMETRIC
        made = ImageCms.profileToProfile(colors, profile, ImageCms.createProfile("sRGB"), intent, "RGB")
        assert made
        pairs = zip(made.tobytes(), colors.convert("RGB").tobytes(), strict=True)
        return Profile(name, is_srgb=all(abs(one - other) <= _SAME for one, other in pairs))
    except Exception:  # noqa: BLE001 - damaged, or of a color space that neither grey nor RGB pixels have
        return Profile(name, is_srgb=False)


def _gif_frames(data: bytes) -> int:
    """Image descriptors in a GIF."""
    frames = 0
    try:
        at = 13 + _gif_table(data[10])
        while frames < MOST_FRAMES and data[at] in (0x21, 0x2C):  # extension, image
            if data[at] == 0x2C:
                frames += 1
                at += 11 + _gif_table(data[at + 9])
            else:
                at += 2
            while data[at]:
                at += 1 + data[at]
            at += 1
    except IndexError:  # it breaks off
        pass
    return frames


def _gif_table(flags: int) -> int:
    """Bytes of a table of colors."""
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _tiff_pages(data: bytes) -> int:
    """Directories of a TIFF that are neither a smaller edition of another page nor a mask."""
    order = ">" if data.startswith(b"MM") else "<"
    is_big = data[2:4] in (b"\0+", b"+\0")
    first, counter, pointer, entry, head = (8, "Q", "Q", 20, 8) if is_big else (4, "H", "I", 12, 2)
    pages, seen = 0, set[int]()
    try:
        (at,) = struct.unpack_from(order + pointer, data, first)
        while at and at not in seen and len(seen) < MOST_FRAMES:
            seen.add(at)
            (count,) = struct.unpack_from(order + counter, data, at)
            tag, kind = struct.unpack_from(f"{order}HH", data, at + head)
            value = f"{order}{'H' if kind == 3 else 'I'}"
            subfile = (
                struct.unpack_from(value, data, at + head + entry - (8 if is_big else 4))[0] if tag == _SUBFILE_TYPE else 0
            )
            pages += not subfile & _REDUCED_OR_MASK
            (at,) = struct.unpack_from(order + pointer, data, at + head + entry * count)
    except struct.error:  # it breaks off
        pass
    return pages
