import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from alexnet.images.resize import Filter, decode, encode, orientation_of, prepare, turn
from pipelines.cli import pictures
from tests.support.xmp import with_xmp


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    error = np.mean((first.astype(float) - second.astype(float)) ** 2)
    return float(10 * np.log10(255**2 / error)) if error else 99.0


def pillow_square(data: bytes, side_px: int) -> np.ndarray:
    """The usual script, with the square cut out at the same places: Pillow's antialiased bilinear filter."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    box = (left, top, left + side, top + side)
    return np.asarray(image.resize((side_px, side_px), Image.Resampling.BILINEAR, box=box))


@settings(deadline=None, max_examples=25)
@given(st.integers(20, 300), st.integers(20, 300), st.integers(0, 9))
def test_the_square_is_the_same_as_by_pillow(width: int, height: int, seed: int) -> None:
    data = pictures.encode_image(pictures.draw_image(seed, width, height), "PNG")
    assert psnr(prepare(data, 64, "triangle"), pillow_square(data, 64)) > 45


@pytest.mark.parametrize("resize_filter", ["triangle", "area"])
def test_a_large_jpeg_is_decoded_smaller_and_looks_the_same(resize_filter: Filter) -> None:
    data = pictures.jpeg(2, 1300, 1100)
    assert decode(data, 128).shape == (138, 163, 3)  # an eighth
    assert decode(data).shape == (1100, 1300, 3)
    assert psnr(prepare(data, 64, resize_filter), pillow_square(data, 64)) > 40


def test_thin_lines_are_antialiased() -> None:
    lines = np.zeros((512, 512, 3), np.uint8)
    lines[::2] = 255
    data = pictures.encode_image(Image.fromarray(lines), "PNG")
    for resize_filter in get_args(Filter):
        assert np.abs(prepare(data, 64, resize_filter).astype(int) - 128).max() <= 5


def test_area_is_the_mean_where_it_shrinks_by_a_whole_number() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = pictures.encode_image(Image.fromarray(pixels), "PNG")
    mean = pixels.reshape(16, 4, 16, 4, 3).mean((1, 3))
    assert np.abs(prepare(data, 16, "area") - mean).max() <= 1


def test_every_mode_becomes_rgb() -> None:
    image = pictures.draw_image(4, 80, 60)
    whole = prepare(pictures.encode_image(image, "PNG"), 32, "triangle")
    for data in (
        pictures.encode_image(image.convert("RGBA"), "PNG"),
        pictures.encode_image(image.convert("CMYK"), quality=100),
        pictures.encode_image(image, "BMP"),
        pictures.encode_image(image, "WEBP", lossless=True),
    ):
        assert psnr(prepare(data, 32, "triangle"), whole) > 30


def test_sixteen_bits_keep_their_upper_eight() -> None:
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    data = pictures.encode_image(Image.fromarray(ramp), "PNG")
    assert np.array_equal(decode(data)[:, :, 0], (ramp >> 8).astype(np.uint8))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_fewer_bits_than_the_container_has_are_not_black(bits: int, form: str) -> None:
    ramp = np.linspace(0, (1 << bits) - 1, 64 * 64).reshape(64, 64).astype(np.uint16)
    data = pictures.encode_image(Image.fromarray(ramp), form)
    assert np.array_equal(decode(data)[:, :, 0], (ramp >> bits - 8).astype(np.uint8))


def test_what_a_png_says_of_its_bits_is_taken_before_its_values() -> None:
    ramp = np.linspace(0, 4095, 64 * 64).reshape(64, 64).astype(np.uint16)
    data = pictures.encode_image(Image.fromarray(ramp), "PNG")
    said = b"sBIT" + bytes([16])
    chunk = (1).to_bytes(4, "big") + said + zlib.crc32(said).to_bytes(4, "big")
    assert decode(data[:33] + chunk + data[33:]).max() == 4095 >> 8


def sixteen_bits(pixels: np.ndarray, form: str) -> bytes:
    """An array of 16-bit colors as a file, which Pillow cannot write."""
    height, width, channels = pixels.shape
    if form == "PNG":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
        header = struct.pack(">IIBBBBB", width, height, 16, {2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
        chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
        return b"\x89PNG\r\n\x1a\n" + b"".join(pictures.png_chunk(*chunk) for chunk in chunks)
    order = form[-1]
    bits, body = struct.pack(f"{order}{channels}H", *[16] * channels), pixels.astype(f"{order}u2").tobytes()
    tags = {256: width, 257: height, 258: 110, 259: 1, 262: 2, 273: 110 + len(bits), 277: channels, 279: len(body)}
    kinds = {258: (3, channels)}  # SHORT, one for each channel; the others: a LONG
    entries = (struct.pack(f"{order}HHII", tag, *kinds.get(tag, (4, 1)), value) for tag, value in tags.items())
    directory = struct.pack(f"{order}H", len(tags)) + b"".join(entries)
    return ((b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8) + directory).ljust(110, b"\0") + bits + body


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("form", ["PNG", "TIFF <", "TIFF >"])
@pytest.mark.parametrize("channels", [2, 3, 4])
def test_colors_of_fewer_bits_than_the_container_has_are_not_black(bits: int, form: str, channels: int) -> None:
    if form != "PNG" and channels != 3:
        pytest.skip("what else a TIFF's channels may be")
    pixels = np.random.default_rng(bits).integers(0, 1 << bits, (40, 30, channels))
    pixels[0, 0] = (1 << bits) - 1
    if channels != 3:
        pixels[..., -1] = 65535  # opaque
    colors = pixels[..., :3] if channels > 2 else pixels[..., :1].repeat(3, 2)
    assert np.array_equal(decode(sixteen_bits(pixels, form)), (colors >> bits - 8).astype(np.uint8))


@pytest.mark.parametrize("bits", [17, 24, 31])
def test_a_grey_picture_of_more_than_16_bits_is_not_white(bits: int) -> None:
    pixels = np.random.default_rng(bits).integers(0, 1 << bits, (40, 30)).astype(np.int32)
    pixels[0, 0] = (1 << bits) - 1
    assert np.array_equal(decode(pictures.encode_image(Image.fromarray(pixels), "TIFF"))[..., 0], pixels >> bits - 8)


def test_transparency_of_a_palette_is_left_out_without_a_warning() -> None:
    image = pictures.draw_image(1).convert("P")
    data = pictures.encode_image(image, "PNG", transparency=bytes([0, 128]))
    assert np.array_equal(decode(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_exif_says(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = pictures.draw_image(3, 90, 60)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(pictures.encode_image(image, "PNG", exif=exif)))))
    assert np.array_equal(turn(np.asarray(image), orientation), shown)
    for kind, options in (("PNG", {"exif": exif}), ("TIFF", {"tiffinfo": exif}), ("JPEG", {"exif": exif, "subsampling": 0})):
        data = pictures.encode_image(image, kind, **options)
        assert orientation_of(data) == orientation
        assert psnr(decode(data), np.asarray(image)) > 40  # as it is stored
        meant = prepare(pictures.encode_image(Image.fromarray(shown), "PNG"), 32, "triangle")
        assert psnr(prepare(data, 32, "triangle", orientation), meant) > 40


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_as_xmp_says_by_pillows_rule(kind: str, orientation: int) -> None:
    image = pictures.draw_image(3, 90, 60)
    data = with_xmp(image, kind, f'tiff:Orientation="{orientation}"')
    with Image.open(io.BytesIO(data)) as opened:
        shown = np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
    stored = decode(data)
    assert stored.shape == (60, 90, 3)
    assert orientation_of(data) == orientation
    assert psnr(turn(stored, orientation), shown) > 40


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L", "CMYK"])
def test_many_pixels_come_smaller_and_look_the_same(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    image = pictures.draw_image(7, 1301, 1101)
    image = image.quantize(256) if mode == "P" else image.convert(mode)
    data = pictures.encode_image(image) if mode == "CMYK" else pictures.encode_image(image, "PNG")
    assert decode(data, 128).shape == (1101, 1301, 3)
    monkeypatch.setattr("alexnet.images.resize._BLOCK_MEAN_PX", 1 << 20)
    assert decode(data, 128).shape == (138, 163, 3)
    assert psnr(prepare(data, 64, "triangle"), pillow_square(data, 64)) > 40


MEMORY = """
import resource, sys, threading
from pathlib import Path
from alexnet.images.resize import encode, prepare

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

small, large = (Path(name).read_bytes() for name in sys.argv[1:])
encode(prepare(small, 256, "triangle"), 95)
before = peak()
threads = [threading.Thread(target=lambda: encode(prepare(large, 256, "triangle"), 95)) for _ in range(3)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
print(peak() - before)
"""


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "CMYK"])
def test_three_threads_with_huge_images_take_the_memory_of_one(mode: str, tmp_path: Path) -> None:
    side_px = 5000
    image = Image.new(mode, (side_px, side_px), (200, 100, 50, 9)[: len(mode)])
    (tmp_path / "large").write_bytes(
        pictures.encode_image(image) if mode == "CMYK" else pictures.encode_image(image, "PNG", compress_level=1)
    )
    (tmp_path / "small").write_bytes(pictures.encode_image(pictures.draw_image(1), "PNG"))
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "small"), str(tmp_path / "large")]
    mebibytes = float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    pillows_own = 4 * side_px**2 / 2**20
    assert mebibytes < (40 if mode == "CMYK" else 1.2 * pillows_own + 20)


def test_pillows_limit_of_the_host_process_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures.encode_image(pictures.draw_image(1, 60, 1000), "PNG")
    expected = decode(data)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20_000)
    assert np.array_equal(decode(data), expected)


def test_exif_orientation_is_not_applied() -> None:
    assert decode(pictures.rotated_jpeg(1)).shape == (48, 64, 3)


def test_an_image_of_the_right_size_is_left_alone() -> None:
    image = pictures.draw_image(5, 64, 64)
    assert np.array_equal(prepare(pictures.encode_image(image, "PNG"), 64, "triangle"), np.asarray(image))


def test_an_encoded_image_is_nearly_the_same() -> None:
    pixels = np.asarray(pictures.draw_image(6, 64, 64))
    assert psnr(decode(encode(pixels, 95)), pixels) > 35
    assert encode(pixels, 95) == encode(pixels.copy(), 95)


@pytest.mark.parametrize(
    ("name", "side_px", "resampling"),
    [
        ("triangle", 20, Image.Resampling.BILINEAR),
        ("triangle", 80, Image.Resampling.BILINEAR),
        ("area", 20, Image.Resampling.BOX),
        ("area", 80, Image.Resampling.BICUBIC),
    ],
)
def test_the_filters_are_those_of_pillow(name: Filter, side_px: int, resampling: Image.Resampling) -> None:
    """Which config.json of a trained network says of them."""
    image = pictures.draw_image(1, 90, 60)
    twin = np.asarray(image.resize((side_px, side_px), resampling, box=(15, 0, 75, 60)), np.int64)
    differences = np.abs(prepare(pictures.encode_image(image, "PNG"), side_px, name) - twin)
    assert differences.max() <= 2  # each rounds between its two passes
    assert differences.mean() < 0.15  # another filter of Pillow differs by more


PREPARE = """
import hashlib, sys
import numpy as np
from cykooz_resizer import CpuExtensions, Resizer
from PIL import Image
from alexnet.images import resize
from pipelines.cli import pictures
resize._thread.resizer = Resizer()
resize._thread.resizer.cpu_extensions = getattr(CpuExtensions, sys.argv[1])
pixels = np.random.default_rng(1).integers(0, 256, (300, 431, 3), np.uint8)
digest = hashlib.sha256()
for data in (resize.encode(pixels, 90), pictures.encode_image(Image.fromarray(pixels), "PNG")):
    for by in ("triangle", "area"):
        for side_px in (64, 256, 400):
            digest.update(resize.encode(resize.prepare(data, side_px, by), 95))
print(digest.hexdigest())
"""


def test_a_shards_pictures_are_the_same_bytes_on_every_processor() -> None:
    """The resizer by the instructions of other processors, and libjpeg-turbo by those that it is told to keep to."""
    variants: tuple[tuple[str, dict[str, str]], ...] = (
        ("avx2", {}),
        ("sse4_1", {"JSIMD_FORCESSE2": "1"}),
        ("none", {"JSIMD_FORCENONE": "1"}),
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", PREPARE, name], env=os.environ | env, capture_output=True, text=True, check=True
        ).stdout
        for name, env in variants
    }
    assert len(found) == 1
