"""The page and the slide of one picture."""

import re
from pathlib import Path

import pytest
from PIL import Image

from pipelines.config import params
from pipelines.pictures.explain.page import write_explanation
from pipelines.pictures.explain.subject import Subject, read_training
from tests.pipelines.pictures.explain.test_trace import IMAGE, pretrained
from tests.support.stage_folder import PARAMS


@pytest.mark.parametrize("variant", [None, "one-tower", "no-lrn"])
def test_a_page_shows_the_whole_network_and_needs_no_other_file(tmp_path: Path, variant: str | None) -> None:
    training = read_training(params.load_tree(PARAMS), tmp_path / "none")
    subject = Subject(IMAGE, "<i>photo.v1\u202e.jpg", pretrained(variant), "here", training if not variant else None, "<b>$1")
    write_explanation(tmp_path / "photo.v1-explained", subject)
    page = (tmp_path / "photo.v1-explained.html").read_text()
    assert re.findall(r'(?:src|href)="(?!data:)', page) == []
    assert "<i>" not in page
    assert "&lt;i&gt;photo.v1[202E].jpg" in page
    assert all(f"<h3>{name}</h3>" in page for name in ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7"))
    assert ("local response norm" in page) == (variant != "no-lrn")
    assert ("What crosses between the towers" in page) == (variant != "one-tower")
    assert ("Random crops of 224x224 pixels at 33 offsets on each axis, never flipped, without color noise" in page) == (
        not variant
    )
    with Image.open(tmp_path / "photo.v1-explained.png") as slide:
        assert slide.size == (2560, 1440)
