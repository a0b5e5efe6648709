import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet.images.container import Profile, bits_per_channel, num_frames, read_profile
from alexnet.images.inspect import open_image
from pipelines.cli import pictures


def frames(data: bytes) -> int:
    with open_image(data) as image:
        return num_frames(image, data)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"])
@pytest.mark.parametrize("count", [1, 2, 5])
def test_the_pictures_of_a_file_are_counted(kind: str, count: int) -> None:
    assert frames(pictures.animation(1, kind, count)) == count


@pytest.mark.parametrize("options", [{}, {"compression": "tiff_lzw"}, {"big_tiff": True}])
def test_a_preview_is_no_page_of_its_own(options: dict[str, object]) -> None:
    page = pictures.draw_image(1)
    preview = page.resize((16, 12))
    preview.encoderinfo = {"tiffinfo": {254: 1}}  # as Pillow wants the tags of further pages
    data = pictures.encode_image(page, "TIFF", save_all=True, append_images=[page, preview], **options)
    assert frames(data) == 2


def test_pages_that_lead_back_are_counted_once_and_no_more_than_ten_thousand() -> None:
    directory = struct.pack("<HHHII", 1, 256, 3, 1, 9)
    image = Image.new("L", (1, 1))
    image.format = "TIFF"
    assert num_frames(image, b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<I", 8)) == 1
    many = b"".join(directory + struct.pack("<I", 8 + 18 * number) for number in range(1, 12_000))
    assert num_frames(image, b"II*\0" + struct.pack("<I", 8) + many) == 10_000
    image.format = "GIF"
    assert num_frames(image, b"GIF89a" + bytes(7) + (b"\x2c" + bytes(9) + b"\x02\0") * 12_000) == 10_000


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(["GIF", "TIFF"]), st.data())
def test_no_damage_raises(kind: str, data: st.DataObject) -> None:
    image, spoiled = Image.new("L", (1, 1)), bytearray(pictures.animation(1, kind))
    image.format = kind
    for _ in range(data.draw(st.integers(1, 4))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    assert 1 <= num_frames(image, bytes(spoiled[: data.draw(st.integers(14, len(spoiled)))])) <= 10_000


def test_a_profile_is_judged_by_its_colors() -> None:
    assert read_profile(None) == Profile("", is_srgb=True)
    assert read_profile(pictures.srgb_profile()) == Profile("sRGB built-in", is_srgb=True)
    assert read_profile(pictures.swapped_profile()) == Profile("sRGB built-in", is_srgb=False)
    assert read_profile(b"no profile") == Profile("without a name", is_srgb=False)
    assert read_profile(bytes(2 << 20)) == Profile("too large to be read", is_srgb=False)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_jpeg_2000_and_avif_say_how_many_bits_they_have(mode: str) -> None:
    for kind, bits in (("JPEG2000", 8), ("AVIF", 8)):
        data = pictures.encode_image(pictures.draw_image(1).convert(mode), kind)
        with open_image(data) as image:
            assert bits_per_channel(image, data) == bits
    deep = pictures.encode_image(Image.new("I;16", (32, 32), 999), "JPEG2000")
    with open_image(deep) as image:
        assert bits_per_channel(image, deep) == 16
