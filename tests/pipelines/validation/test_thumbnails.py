import base64
import io
from pathlib import Path

import pytest
from PIL import Image

from pipelines.cli import pictures
from pipelines.config import params
from pipelines.sources.folder import FolderSource
from pipelines.sources.places import LocalFolder
from pipelines.validation import index, thumbnails
from pipelines.validation.thumbnails import Pictures, make_pictures
from tests.support.stage_folder import make_image_folder

CONFIG = params.load().validate


def made(root: Path) -> Pictures:
    source = FolderSource(LocalFolder(root), "here")
    table = index.complete(index.scan(source, CONFIG), CONFIG, 0.25)
    return make_pictures(table, source, ["truncated", "tiny", "empty", "duplicate"])


def opened(uri: str) -> Image.Image:
    assert uri.startswith("data:image/webp;base64,")
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_some_of_every_class_are_shown_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = made(make_image_folder(tmp_path, classes=3, images=8))
    assert {wnid: len(some) for wnid, some in found.classes.items()} == {"class0": 6, "class1": 6, "class2": 6}
    assert found == made(tmp_path)  # the same again
    assert {opened(each.uri).size for some in found.classes.values() for each in some} == {(64, 48)}  # not enlarged
    assert len(found.brightness) == 24
    assert all(0 <= value <= 1 for value in found.brightness)
    monkeypatch.setattr(thumbnails, "SIDE_PX", 32)
    monkeypatch.setattr(thumbnails, "_OF_CLASSES", 3)
    monkeypatch.setattr(thumbnails, "SAMPLED", 5)
    few = made(tmp_path)
    assert [len(some) for some in few.classes.values()] == [1, 1, 1]
    assert {opened(some[0].uri).size for some in few.classes.values()} == {(32, 24)}
    assert len(few.brightness) == 5


def test_black_is_0_and_white_is_1(tmp_path: Path) -> None:
    for name, level in (("black", 0), ("white", 255)):
        (tmp_path / name).mkdir()
        Image.new("RGB", (40, 20), (level,) * 3).save(tmp_path / name / "1.png")
    assert sorted(made(tmp_path).brightness) == [0.0, 1.0]


def test_every_culprit_is_shown_as_far_as_it_can_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_image_folder(tmp_path)
    image = pictures.draw_image(50, 64, 48)
    whole = pictures.encode_image(image, "PNG")
    (tmp_path / "class0/cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "class0/small.png").write_bytes(pictures.encode_image(pictures.draw_image(60, 4, 4), "PNG"))
    (tmp_path / "class1/zero.jpg").touch()
    for number in range(3):
        (tmp_path / f"class1/copy{number}.jpg").write_bytes((tmp_path / "class1/1.jpg").read_bytes())
    monkeypatch.setattr(thumbnails, "CULPRITS", 2)
    found = made(tmp_path).culprits
    assert {kind: [each.key for each in some] for kind, some in found.items()} == {
        "truncated": ["class0_cut"],
        "tiny": ["class0_small"],
        "empty": ["class1_zero"],
        "duplicate": ["class1_copy0", "class1_copy1"],
    }
    assert (found["empty"][0].uri, found["empty"][0].about) == ("", "0 bytes")
    assert (opened(found["tiny"][0].uri).size, found["tiny"][0].about) == ((4, 4), "4 x 4 px, PNG")
    assert opened(found["truncated"][0].uri).size == (64, 48)  # what is before the cut
