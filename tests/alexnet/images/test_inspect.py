import re
import subprocess
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import simplejpeg
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet.config import build
from alexnet.errors import ParamsError
from alexnet.images.inspect import (
    FAULT_MEANINGS,
    FAULTS,
    POLICIES,
    Fault,
    ImageReport,
    ValidateConfig,
    inspect_image,
    large_image_lock,
    suffix,
)
from pipelines.cli import pictures
from pipelines.config import params
from tests.support.xmp import with_xmp

CONFIG = params.load().validate
STRICT = replace(CONFIG, policy=CONFIG.policy | {"grey": "repair"})


def faults(data: bytes, name: str = "a.jpg") -> set[str]:
    return set(inspect_image(data, name, STRICT).faults)


def text_bomb() -> bytes:
    """A PNG with 70 MB of text in it."""
    data = pictures.encode_image(pictures.draw_image(1), "PNG")
    return data[:33] + pictures.png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(70_000_000))) + data[33:]


def jpeg_of_another_frame(marker: int, bits: int = 8) -> bytes:
    """A JPEG whose header says lossless (0xC3) or more bits; its data do not matter."""
    data = bytearray(pictures.jpeg(1))
    frame = data.index(b"\xff\xc0")
    data[frame + 1], data[frame + 4] = marker, bits
    return bytes(data)


def test_a_good_image_has_no_fault_and_says_what_it_is() -> None:
    assert inspect_image(pictures.jpeg(1), "a.jpg", CONFIG) == ImageReport(64, 48, "RGB", "JPEG", frozenset())


@pytest.mark.parametrize(
    ("data", "name", "fault"),
    [
        (b"", "a.jpg", "empty"),
        (b"<html>404</html>", "a.jpg", "not_an_image"),
        (pictures.jpeg(1)[:-2], "a.jpg", "truncated"),
        (pictures.jpeg(1)[: len(pictures.jpeg(1)) // 2], "a.jpg", "truncated"),
        (pictures.jpeg(1)[:40], "a.jpg", "truncated"),
        (pictures.encode_image(pictures.draw_image(1), "PNG")[:200], "a.png", "truncated"),
        (jpeg_of_another_frame(0xC3), "a.jpg", "not_an_image"),
        (jpeg_of_another_frame(0xC1, bits=12), "a.jpg", "not_an_image"),
        (pictures.huge_png(20_000), "a.png", "bomb"),
        (pictures.jpeg(1, 1, 1), "a.jpg", "tiny"),
        (pictures.jpeg(1, 4000, 9), "a.jpg", "extreme_aspect"),
        (pictures.damaged_jpeg(1), "a.jpg", "damaged"),
        (pictures.encode_image(pictures.draw_image(1), "PNG"), "a.JPEG", "wrong_format"),
        (pictures.encode_image(pictures.draw_image(1).convert("CMYK")), "a.jpg", "cmyk"),
        (pictures.encode_image(Image.fromarray(np.full((20, 20), 999, np.uint16)), "PNG"), "a.png", "deep"),
        (pictures.encode_image(pictures.draw_image(1).convert("RGBA"), "PNG"), "a.png", "alpha"),
        (pictures.encode_image(pictures.draw_image(1).convert("P"), "PNG"), "a.png", "palette"),
        (pictures.encode_image(pictures.draw_image(1).convert("L")), "a.jpg", "grey"),
        (pictures.encode_image(pictures.draw_image(1).convert("1"), "PNG"), "a.png", "grey"),
        (pictures.jpeg_with_exif(1, b"II*\0\xff\xff\xff\x0f"), "a.jpg", "exif_damaged"),
        (pictures.jpeg_with_exif(1, b"nonsense"), "a.jpg", "exif_damaged"),
        (pictures.rotated_jpeg(1), "a.jpg", "exif_rotated"),
        (pictures.animation(1, "MPO"), "a.jpg", "frames"),
        (pictures.animation(1, "WEBP"), "a.webp", "frames"),
        (pictures.animation(1, "PNG"), "a.png", "frames"),
        (pictures.animation(1, "TIFF"), "a.tif", "frames"),
        (pictures.animation(1, "AVIF"), "a.avif", "frames"),
        (pictures.encode_image(pictures.draw_image(1), icc_profile=pictures.swapped_profile()), "a.jpg", "profile"),
        (pictures.encode_image(pictures.draw_image(1), "PNG", icc_profile=b"no profile"), "a.png", "profile"),
    ],
)
def test_every_kind_of_fault_is_found_alone(data: bytes, name: str, fault: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's, of the EXIF; the stage silences them
        assert faults(data, name) == {fault}


def test_more_pixels_or_text_than_is_allowed_is_a_bomb() -> None:
    assert faults(pictures.encode_image(Image.new("RGB", (12_000, 12_000)))) == {"bomb"}
    assert faults(text_bomb(), "a.png") == {"bomb"}


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_form_of_a_turned_picture_is_that_of_its_file(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    tiff = {"tiffinfo": exif} if kind == "TIFF" else {"exif": exif}
    report = inspect_image(pictures.encode_image(pictures.draw_image(1, 64, 48), kind, **tiff), f"a.{kind.lower()}", CONFIG)
    assert (report.width, report.height, report.orientation) == (64, 48, orientation)
    assert report.faults == ({"exif_rotated"} if orientation > 1 else set())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(10))
def test_an_orientation_in_xmp_counts_where_exif_says_none_as_in_pillow(kind: str, orientation: int) -> None:
    valid = orientation if 1 <= orientation <= 8 else 1
    image, name = pictures.draw_image(1, 64, 48), f"a.{kind.lower()}"
    for form in (f'tiff:Orientation="{orientation}"', f"<tiff:Orientation>{orientation}</tiff:Orientation>"):
        report = inspect_image(with_xmp(image, kind, form), name, CONFIG)
        assert (report.width, report.height, report.orientation) == (64, 48, valid)
        assert report.faults == ({"exif_rotated"} if valid > 1 else set())
    exif = Image.Exif()
    exif[0x0112] = 3
    both = with_xmp(image, kind, f'tiff:Orientation="{orientation}"', exif)
    assert inspect_image(both, name, CONFIG).orientation == 3


@pytest.mark.parametrize(
    "xmp", ["", "tiff:Orientation", "tiff:Orientation='6'", "<!ENTITY a '&a;&a;'>" * 1000, "\xff" * 60_000]
)
def test_other_xmp_says_no_orientation(xmp: str) -> None:
    report = inspect_image(with_xmp(pictures.draw_image(1), "JPEG", xmp), "a.jpg", CONFIG)
    assert report.orientation == 1
    assert not report.faults


def test_importing_changes_no_setting_of_pillow() -> None:
    print_it = "print(Image.MAX_IMAGE_PIXELS, ImageFile.LOAD_TRUNCATED_IMAGES)"
    code = f"from PIL import Image, ImageFile; {print_it}; import alexnet.images.resize; {print_it}"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.splitlines()
    assert found[0] == found[1]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_pillows_limit_of_the_host_process_does_not_count(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pictures.encode_image(pictures.draw_image(1, 60, 100), kind)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 3_500)  # Pillow warns of this image; a warning fails the test
    assert inspect_image(data, f"a.{kind.lower()}", CONFIG).faults == set()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2_500)  # and refuses it
    config, size = replace(CONFIG, max_pixels=5_999), (0, 0, "", "") if kind == "WEBP" else (60, 100, "RGB", kind)
    assert inspect_image(data, f"a.{kind.lower()}", config) == ImageReport(*size, frozenset({"bomb"}))


def test_bytes_after_the_end_are_no_fault() -> None:
    assert not faults(pictures.jpeg(1) + b"trailing garbage")


def test_a_bomb_is_found_before_it_is_decoded() -> None:
    import tracemalloc

    data = pictures.huge_png(40_000)
    tracemalloc.start()
    inspect_image(data, "a.png", CONFIG)
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()


@settings(deadline=None, max_examples=100)
@given(st.sampled_from([{}, {"progressive": True}, {"subsampling": 0}, {"restart_marker_blocks": 2}]), st.data())
def test_an_eighth_of_a_jpeg_shows_what_the_whole_shows(options: dict[str, Any], data: st.DataObject) -> None:
    spoiled = bytearray(pictures.encode_image(pictures.draw_image(5), **options))
    for _ in range(data.draw(st.integers(1, 3))):
        spoiled[data.draw(st.integers(20, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    try:
        simplejpeg.decode_jpeg(bytes(spoiled), "RGB")
        expected = set()
    except ValueError:
        expected = {"truncated", "damaged", "not_an_image", "bomb"}
    assert bool(faults(bytes(spoiled)) & {"truncated", "damaged", "not_an_image", "bomb"}) == bool(expected)


def test_numbers_without_a_white_are_no_image() -> None:
    assert faults(pictures.encode_image(Image.fromarray(np.full((20, 20), 0.5, np.float32)), "TIFF"), "a.tif") == {
        "not_an_image"
    }


def test_a_webp_counts_twice() -> None:
    webp = pictures.encode_image(pictures.draw_image(1, 100, 100), "WEBP")
    assert not inspect_image(webp, "a.webp", replace(CONFIG, max_pixels=20_000)).faults
    assert inspect_image(webp, "a.webp", replace(CONFIG, max_pixels=19_999)).faults == {"bomb"}


def test_large_images_are_decoded_in_turn_and_small_ones_are_not() -> None:
    inside, most = 0, 0
    lock = threading.Lock()

    def enter(pixels: int) -> None:
        nonlocal inside, most
        with large_image_lock(pixels):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(enter, [5_000_000] * 4))
        assert most == 1
        list(pool.map(enter, [1_000_000] * 4))
        assert most > 1


# An image at the limit in every format that is read, drawn and inspected in processes of their own.
DRAW = """
import io, sys
from PIL import Image
kind, options, side = sys.argv[1], eval(sys.argv[2]), int(sys.argv[3])
stripe = Image.effect_noise((side, 64), 60).convert("CMYK" if "cmyk" in sys.argv else "RGB")
part = io.BytesIO()
image = Image.new(stripe.mode, (side, side))
for top in range(0, side, 64):
    image.paste(stripe, (0, top))
image.save(part, kind, **options)
sys.stdout.buffer.write(part.getvalue())
"""
INSPECT = """
import sys
from pathlib import Path
from alexnet.images.inspect import inspect_image
from pipelines.validation import index
from pipelines.config import params
from pipelines.sources.archives import imagenet
data = sys.stdin.buffer.read()
report = inspect_image(data, "a", params.load().validate)
peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(*sorted(report.faults - {"cmyk", "palette", "wrong_format"}), int(peak.split()[1]) >> 10)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "options", "mode"),
    [
        ("JPEG", {}, "rgb"),
        ("JPEG", {"progressive": True, "subsampling": 0}, "rgb"),
        ("JPEG", {"progressive": True}, "cmyk"),
        ("PNG", {"compress_level": 1}, "rgb"),
        ("WEBP", {"quality": 30, "method": 0}, "rgb"),
        ("TIFF", {"compression": "tiff_lzw"}, "rgb"),
        ("GIF", {}, "rgb"),
        ("BMP", {}, "rgb"),
    ],
)
def test_a_worker_has_less_than_400_mib_whatever_the_image(kind: str, options: dict[str, Any], mode: str) -> None:
    side = int((CONFIG.max_pixels / (2 if kind == "WEBP" else 1)) ** 0.5)
    command = [sys.executable, "-c", DRAW, kind, repr(options), str(side), mode]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    printed = subprocess.run([sys.executable, "-c", INSPECT], input=data, capture_output=True, check=True).stdout.split()
    assert len(printed) == 1, printed  # no fault
    assert int(printed[0]) < 400


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_cut_of_a_jpeg_passes(data: st.DataObject) -> None:
    whole = pictures.jpeg(3)
    cut = data.draw(st.integers(0, len(whole) - 1))
    assert faults(whole[:cut]) & {"empty", "not_an_image", "truncated"}


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=300), st.sampled_from([b"", b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"RIFF"]))
def test_no_bytes_raise(tail: bytes, magic: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert inspect_image(magic + tail, "a.jpg", CONFIG).faults <= set(FAULTS)


@settings(deadline=None, max_examples=40)
@given(st.binary(max_size=200))
def test_no_exif_raises(exif: bytes) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert faults(pictures.jpeg_with_exif(1, exif)) <= {"exif_damaged", "exif_rotated"}


def test_the_strictest_policy_decides_then_the_order_of_kinds() -> None:
    policy = CONFIG.policy | {"tiny": "drop", "cmyk": "repair", "wrong_format": "repair", "grey": "ignore"}
    config = replace(CONFIG, policy=policy)
    assert config.worst({"cmyk", "tiny", "grey"}) == "tiny"
    assert config.worst({"cmyk", "wrong_format"}) == "wrong_format"
    assert config.worst({"grey"}) is None
    assert config.worst(set()) is None


def test_every_kind_has_a_meaning() -> None:
    assert tuple(FAULT_MEANINGS) == FAULTS


def tree(**changes: object) -> dict[str, object]:
    from dataclasses import asdict

    return asdict(CONFIG) | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"min_side_px": 0}, "validate.min_side_px: must be at least 1, got 0"),
        ({"max_aspect": 0.5}, "validate.max_aspect: must be at least 1, got 0.5"),
        ({"max_pixels": 0}, "validate.max_pixels: must be at least 1, got 0"),
        ({"policy": dict.fromkeys(FAULTS[1:], "stop")}, "validate.policy: missing empty"),
        ({"policy": CONFIG.policy | {"gray": "drop"}}, f"validate.policy: must be one of {', '.join(FAULTS)}, got 'gray'"),
        (
            {"policy": CONFIG.policy | {"tiny": "keep"}},
            "validate.policy.tiny: must be one of ignore, repair, drop, stop, got 'keep'",
        ),
        (
            {"policy": CONFIG.policy | {"truncated": "repair"}},
            "validate.policy.truncated: must be one of drop, stop, got 'repair'",
        ),
    ],
)
def test_a_wrong_rule_is_refused_by_its_path(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ParamsError) as error:
        build(ValidateConfig, tree(**changes), "validate")
    assert str(error.value) == message


@pytest.mark.parametrize("fault", FAULTS)
def test_a_typo_in_a_policy_is_answered_with_what_this_fault_allows_and_no_more(fault: Fault) -> None:
    with pytest.raises(ParamsError) as error:
        build(ValidateConfig, tree(policy=CONFIG.policy | {fault: "stopp"}), "validate")
    said = re.fullmatch(rf"validate\.policy\.{fault}: must be one of (.*), got 'stopp'", str(error.value))
    assert said
    for policy in POLICIES:
        wrong = policy not in said[1].split(", ")
        with pytest.raises(ParamsError) if wrong else nullcontext():
            build(ValidateConfig, tree(policy=CONFIG.policy | {fault: policy}), "validate")


@pytest.mark.parametrize(("name", "end"), [("a/b.JPG", ".jpg"), ("a.b/c", ""), (".hidden", ""), ("x.tar.gz", ".gz")])
def test_a_suffix_is_the_last_one_in_lower_case(name: str, end: str) -> None:
    assert suffix(name) == end


def deep_png(color_type: int, channels: int) -> bytes:
    """A PNG of 16 bits a channel, 8 x 8 pixels."""
    header = (8).to_bytes(4, "big") * 2 + bytes([16, color_type, 0, 0, 0])
    body = zlib.compress((b"\0" + bytes(range(16)) * channels) * 8)
    parts = (pictures.png_chunk(kind, data) for kind, data in ((b"IHDR", header), (b"IDAT", body), (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(("color_type", "channels", "more"), [(0, 1, ""), (2, 3, ""), (4, 2, "alpha"), (6, 4, "alpha")])
def test_sixteen_bits_are_found_in_every_color_type_of_png(color_type: int, channels: int, more: str) -> None:
    assert {"deep", more} - {""} <= faults(deep_png(color_type, channels), "a.png")


@pytest.mark.parametrize(("greatest", "is_deep"), [(255, False), (1023, True), (65535, True)])
def test_a_ppm_is_as_deep_as_its_greatest_value(greatest: int, is_deep: bool) -> None:
    body = bytes(8 * 8 * 3 * (1 + is_deep))
    data = b"P6\n# made here\n8 8\n%d\n" % greatest + body
    assert ("deep" in faults(data, "a.ppm")) == is_deep


def test_transparency_in_a_chunk_is_alpha() -> None:
    image = pictures.draw_image(1).convert("L")
    assert "alpha" in faults(pictures.encode_image(image, "PNG", transparency=3), "a.png")
    assert "alpha" not in faults(pictures.encode_image(image, "PNG"), "a.png")


@pytest.mark.parametrize(("form", "name"), [("AVIF", "a.avif"), ("JPEG2000", "a.jp2"), ("JPEG", "a.jfif"), ("PPM", "a.pnm")])
def test_more_formats_are_read(form: str, name: str) -> None:
    assert faults(pictures.encode_image(pictures.draw_image(1), form), name) == set()
