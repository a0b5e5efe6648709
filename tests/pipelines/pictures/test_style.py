"""The style: contrast in both schemes, names as data, equal bytes."""

import io
import re
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from pipelines.pictures import style


def luminance(color: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = (int(color[at : at + 2], 16) / 255 for at in (1, 3, 5))
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(one: str, other: str) -> float:
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_measured_as_wcag_does() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.005)


@pytest.mark.parametrize("scheme", [0, 1])
def test_text_and_marks_have_contrast_in_both_schemes(scheme: int) -> None:
    page = style.SCHEMES["page"][scheme]
    assert min(contrast(style.SCHEMES[name][scheme], page) for name in style.TEXT) >= 4.5
    assert min(contrast(style.SCHEMES[name][scheme], page) for name in style.MARKS) >= 3
    assert min(contrast(colors[scheme], style.SCHEMES[text][scheme]) for colors, text in style.STEPS) >= 4.5


def test_no_two_colors_of_the_light_scheme_are_taken_for_one_another() -> None:
    lights = [light for light, _ in (*style.SCHEMES.values(), *(colors for colors, _ in style.STEPS))]
    assert len(set(lights)) == len(lights)


def draw(figure: Figure) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [1, 0], color=style.ORANGE)
    axes.set_title(style.drawable("$5 & <b>_{x}\n 手"))


def test_equal_drawings_are_equal_files_which_follow_the_color_scheme() -> None:
    files = style.render((3, 2), draw, "a <title>")
    assert files == style.render((3, 2), draw, "a <title>")
    assert Image.open(io.BytesIO(files["png"])).size == (600, 400)
    svg = ET.fromstring(files["svg"])
    assert [child.text for child in svg if child.tag.endswith("title")] == ["a <title>"]
    text = files["svg"].decode()
    dark = re.search(r"@media\(prefers-color-scheme:dark\)\{(.*)\}</style>", text)
    assert dark
    used = set(re.findall(r"(?:fill|stroke): (#[0-9a-f]{6})", text.replace(dark[0], "")))
    assert used
    assert [color for color in used if f": {color}" not in dark[1]] == [], "every color has a rule in the dark"


def test_names_are_data() -> None:
    assert style.drawable("a\n$x$  b") == "a $x$ b"
    assert style.drawable("手 é") == "[624B] é"
    assert style.drawable("\u202eevil \u200b\x1b") == "[202E]evil [200B][001B]"
    assert style.short("tabby, tabby cat") == "tabby"
    assert style.short("a name of very many words indeed") == "a name of very many…"
    assert style.short("n" * 40) == "n" * 21 + "…"
    assert style.short("n" * 22) == "n" * 22


def test_a_share_is_never_rounded_to_all_or_nothing() -> None:
    shares = (0, 0.0001, 0.016, 0.5, 0.9949, 0.9999, 1)
    assert [style.percent(share) for share in shares] == ["0%", "<0.1%", "1.6%", "50%", "99.5%", ">99.9%", "100%"]


def test_a_thumbnail_is_the_picture_made_smaller() -> None:
    small = style.thumbnail(np.full((256, 256, 3), (10, 20, 30), np.uint8), 16)
    assert small.shape == (16, 16, 3)
    assert (small == (10, 20, 30)).all()
