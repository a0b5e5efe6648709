"""Drawn image files: smooth colors, which JPEG keeps well, and files with one fault."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageCms


def draw_image(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Smooth random colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def encode_image(image: Image.Image, file_format: str = "JPEG", **options: object) -> bytes:
    """The image as a file; options are Pillow's for that format."""
    out = io.BytesIO()
    image.save(out, file_format, **({"quality": 95} if file_format == "JPEG" else {}) | options)
    return out.getvalue()


def jpeg(seed: int, width: int = 64, height: int = 48) -> bytes:
    """A JPEG file without faults."""
    return encode_image(draw_image(seed, width, height))


def rotated_jpeg(seed: int) -> bytes:
    """A JPEG with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return encode_image(draw_image(seed), exif=exif.tobytes())


def animation(seed: int, file_format: str, frames: int = 3) -> bytes:
    """Several pictures in a file; MPO is several JPEGs."""
    first, *others = (draw_image(seed + number) for number in range(frames))
    return encode_image(first, file_format, save_all=True, append_images=others)


def srgb_profile() -> bytes:
    """The ICC profile of sRGB, made at a fixed time."""
    made = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return made[:24] + struct.pack(">6H", 2012, 1, 1, 0, 0, 0) + made[36:]


def swapped_profile() -> bytes:
    """An ICC profile that takes red for green."""
    return srgb_profile().replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")


def jpeg_with_exif(seed: int, exif: bytes) -> bytes:
    """A JPEG with these bytes as its EXIF."""
    body = b"Exif\0\0" + exif
    data = jpeg(seed)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def damaged_jpeg(seed: int) -> bytes:
    """A JPEG with meaningless bytes before its end mark: libjpeg warns of them and decodes."""
    data = jpeg(seed)
    return data[:-2] + b"\x11" * 200 + data[-2:]


def huge_png(side_px: int) -> bytes:
    """A PNG of a few bytes whose header says side_px x side_px pixels."""
    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 2, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", header), png_chunk(b"IDAT", zlib.compress(b"")), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def png_chunk(name: bytes, body: bytes) -> bytes:
    """A chunk of a PNG with its length and checksum."""
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
