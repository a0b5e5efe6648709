"""The page: everything in it is inside it, readable in both schemes, and its numbers are those of the results."""

import base64
import re
from functools import partial
from html.parser import HTMLParser
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote
from xml.etree import ElementTree as ET

import pytest
from PIL import Image

from pipelines.claims import mapping, story
from pipelines.claims import table as tables
from pipelines.claims.compare import Table
from pipelines.claims.story import write_story
from pipelines.config import params
from pipelines.pictures import style
from pipelines.pictures.explain.subject import Subject, Training
from pipelines.pictures.style import SCHEMES
from tests.pipelines.pictures.explain.test_trace import IMAGE, pretrained
from tests.support.stage_folder import PARAMS
from tests.support.trained_folder import PIXELS


class Page(HTMLParser):
    """All elements with their attributes, and all text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def named(self, tag: str) -> list[dict[str, Any]]:
        return [attributes for name, attributes in self.elements if name == tag]


def write(path: Path, table: Table, monkeypatch: pytest.MonkeyPatch) -> Page:
    """The page of a picture in a small network of random weights."""
    monkeypatch.setattr("pipelines.claims.documents.tables", lambda of: [table])
    monkeypatch.setattr(tables, "draw", lambda of, stem: stem.with_suffix(".svg").write_bytes(b"<svg/>"))
    augment = params.load(PARAMS).train.augment
    write_story(
        path, Subject(IMAGE, "noise.png", pretrained(), "model", Training(augment, PIXELS)), mapping.read(), path.parent
    )
    return Page(path.read_text())


def test_the_page_needs_no_other_file_and_can_be_read_by_everyone(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = write(tmp_path / "story.html", table, monkeypatch)
    images = page.named("img")
    assert len(images) > 15
    assert all(each["src"].startswith("data:image/") and each["alt"] for each in images)
    assert not re.search(r'(src|href)="(?!#|data:)', (tmp_path / "story.html").read_text())
    assert page.named("html") == [{"lang": "en"}]
    for landmark in ("title", "h1", "header", "main", "footer", "nav"):
        assert len(page.named(landmark)) == 1, landmark
    headings = [tag for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert headings == ["h1", *["h2"] * 10]
    assert {each["href"] for each in page.named("a")} == {f"#{each['id']}" for each in page.named("section")}
    assert all(each["scope"] == "col" for each in page.named("th"))
    assert page.named("meta")[1]["content"] == "width=device-width, initial-scale=1"


def test_photographs_are_small_also_inside_a_picture_of_the_run(
    table: Table, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = partial(style.show_image, pixels=IMAGE.numpy())
    (tmp_path / "evaluation").mkdir()
    style.save(tmp_path / "evaluation" / "predictions", (2, 2), lambda figure: draw(figure.subplots()), "Predictions")
    page = write(tmp_path / "story.html", table, monkeypatch)
    (inside,) = [each for each in page.named("img") if each["alt"] == "Images with the five best classes"]
    svg = unquote(inside["src"].partition(",")[2])
    assert ET.fromstring(svg).tag.endswith("svg")
    assert "data:image/png" not in svg
    assert svg.count("data:image/webp") == 1
    crops = [each["src"] for each in page.named("img") if each["alt"].startswith("Crop ")]
    assert len(crops) == 10
    for uri in crops:
        with Image.open(BytesIO(base64.b64decode(uri.partition(",")[2]))) as image:
            assert (image.format, image.size) == ("WEBP", (160, 160))


def test_its_numbers_are_those_of_the_results(table: Table) -> None:
    words = story._by_claim([table])
    for row in table.rows:
        (measured,) = words[row.name]
        assert measured.ours.startswith(tables.ours(row))
        assert measured.verdict == (row.outcome.verdict if row.outcome else "")
    assert words["helps"][0].ours.endswith(" points")
    assert words["missing"][0].ours == "not measured yet"


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_text_stands_out_from_the_page(scheme: int) -> None:
    """A contrast of 4.5, WCAG 2.2, 1.4.3, of every color that the page writes in."""

    def luminance(color: str) -> float:
        parts = [int(color[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    page = luminance(SCHEMES["page"][scheme])
    for name in ("ink", "faint", "blue"):
        light, dark = sorted((page, luminance(SCHEMES[name][scheme])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, name
