"""Image files made at test time: smooth color, so that JPEG keeps them, and every fault on request."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def picture(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Smooth random colors."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3)).astype(np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def file_of(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """The image as a file."""
    out = io.BytesIO()
    image.save(out, kind, **({"quality": 95} if kind == "JPEG" else {}) | options)
    return out.getvalue()


def jpeg(seed: int, width: int = 64, height: int = 48) -> bytes:
    """A JPEG file."""
    return file_of(picture(seed, width, height))


def rotated(seed: int) -> bytes:
    """A JPEG with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(picture(seed), exif=exif.tobytes())


def with_exif(seed: int, exif: bytes) -> bytes:
    """A JPEG with these bytes as its EXIF."""
    body = b"Exif\0\0" + exif
    data = jpeg(seed)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(body) + 2) + body + data[2:]


def huge_png(side: int) -> bytes:
    """A PNG of a few bytes that claims side x side pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def text_bomb() -> bytes:
    """A PNG with 200 MB of text in it."""
    data = file_of(picture(1), "PNG")
    body = b"Comment\0\0" + zlib.compress(bytes(200_000_000), 9)
    chunk = struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))
    return data[:33] + chunk + data[33:]


def dirty(seed: int) -> bytes:
    """A JPEG that libjpeg warns of and decodes: bytes that mean nothing before its end mark."""
    data = jpeg(seed)
    return data[:-2] + b"\x11" * 200 + data[-2:]


def folder(root: Path, classes: int = 2, images: int = 8, first: int = 0) -> Path:
    """CLASS/IMAGE.jpg, every image another."""
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(images):
            (root / f"class{label}" / f"{number}.jpg").write_bytes(jpeg(first + label * images + number))
    return root
