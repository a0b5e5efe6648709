"""README's picture of the stages is that of dvc.yaml."""

import xml.etree.ElementTree as ET

import yaml

from tools import stages_picture


def test_the_committed_picture_is_that_of_dvc_yaml() -> None:
    stages = yaml.safe_load((stages_picture.ROOT / "dvc.yaml").read_text())["stages"]
    svg = stages_picture.draw(stages)
    assert stages_picture.PICTURE.read_text() == svg, "`python -m tools.stages_picture` draws it"
    texts = {element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")}
    assert set(stages) < texts


def test_boxes_that_wait_for_the_same_stage_are_beside_one_another() -> None:
    svg = stages_picture.draw({"a": {"outs": ["x"]}, "b": {"deps": ["x"], "outs": ["y"]}, "c": {"deps": ["x"], "outs": ["z"]}})
    _, b, c = [element.attrib for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}rect")]
    assert b["y"] == c["y"]
    assert float(b["x"]) + float(b["width"]) < float(c["x"])
