"""ImageNet and tiny-imagenet-200 in the forms that people have them in."""

import gzip
import hashlib
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.cli import pictures
from pipelines.sources.base import ArchiveConfig, SourceConfig
from pipelines.sources.folder import FolderSource
from pipelines.sources.open import open_source
from tests.pipelines.sources.archives.test_imagenet import KIT, TRAIN, VAL, indexed, labels, opened, truth, unpack
from tests.support.stage_folder import make_small_ilsvrc


def test_kaggles_folders_and_list_are_the_same_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path / "archives")
    unpack(made, tmp_path / "archives", tmp_path / "kaggle/ILSVRC/Data/CLS-LOC", flat=True)
    (tmp_path / "kaggle/ILSVRC/Data/CLS-LOC" / KIT).unlink()
    test = tmp_path / "kaggle/ILSVRC/Data/CLS-LOC/test"
    test.mkdir()
    (test / "ILSVRC2012_test_00000001.JPEG").write_bytes(b"")
    lines = [f"{key},{wnid} 1 2 3 4" for key, (wnid, split, _) in truth(made).items() if split == "val"]
    (tmp_path / "kaggle/LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *lines]))
    (tmp_path / "kaggle/LOC_synset_mapping.txt").write_text("".join(f"{w} thing {i}\n" for i, w in enumerate(made.wnids)))
    source = opened(tmp_path / "kaggle", monkeypatch)
    assert labels(indexed(source)) == truth(made)
    assert source.class_names()[made.wnids[1]] == "thing 1"
    assert list(source.left_out().lines()) == [
        "not taken, folders that are no split, or have no class's folder in them: ILSVRC/Data/CLS-LOC/test/ (1 image)"
    ]


def test_tiny_imagenet_is_read_as_it_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for number, wnid in enumerate(("n01443537", "n01629819")):
        for name in (f"train/{wnid}/images/{wnid}_0", f"val/images/val_{number}", f"test/images/test_{number}"):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / f"{name}.JPEG").write_bytes(pictures.jpeg(hash(name) % 1000))
        (tmp_path / f"train/{wnid}/{wnid}_boxes.txt").touch()
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63\n")
    (tmp_path / "val/val_annotations.txt").write_text("".join(lines))
    monkeypatch.setenv("ALEXNET_SOURCE", str(tmp_path))
    for name in ("folder", "imagenet"):
        source = open_source(SourceConfig(name, 0.25, ()))  # type: ignore[arg-type]
        assert isinstance(source, FolderSource)
        found = {(image.path.rpartition("/")[2], image.split, image.wnid) for image in source.images()}
        assert found == {
            ("n01443537_0.JPEG", "train", "n01443537"), ("n01629819_0.JPEG", "train", "n01629819"),
            ("val_0.JPEG", "val", "n01443537"), ("val_1.JPEG", "val", "n01629819"),
        }  # fmt: skip
        assert "test/ (2 images)" in list(source.left_out().lines())[-1]


def _gunzipped(root: Path, name: str) -> None:
    (root / name).write_bytes(gzip.decompress((root / KIT).read_bytes()))
    if name != KIT:
        (root / KIT).unlink()


def _unpacked_kit(root: Path, *, flat: bool) -> None:
    with tarfile.open(root / KIT) as tar:
        tar.extractall(root / "kit", filter="data")
    (root / KIT).unlink()
    if flat:
        for path in (root / "kit").rglob("*.*"):
            path.rename(root / path.name)


FORMS: dict[str, Callable[[Path], object]] = {
    "gunzipped by a browser": lambda root: _gunzipped(root, KIT),
    "a tar": lambda root: _gunzipped(root, "ILSVRC2012_devkit_t12.tar"),
    "fetched twice": lambda root: (root / KIT).rename(root / "ILSVRC2012_devkit_t12 (1).tar.gz"),
    "unpacked": lambda root: _unpacked_kit(root, flat=False),
    "its files": lambda root: _unpacked_kit(root, flat=True),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("how", ["archives", "unpacked"])
def test_the_devkit_may_have_any_form(how: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path / "archives")
    unpack(made, tmp_path / "archives", tmp_path / "unpacked", flat=True)
    FORMS[form](tmp_path / how)
    source = opened(tmp_path / how, monkeypatch, ArchiveConfig(KIT, hashlib.md5((tmp_path / "x").name.encode()).hexdigest()))
    if form != "fetched twice":  # whose MD5 is not looked at, for it has another name
        assert labels(indexed(source)) == truth(made)
    assert source.files()


def test_training_images_in_one_folder_have_the_classes_of_their_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make_small_ilsvrc(tmp_path / "archives")
    root = unpack(made, tmp_path / "archives", tmp_path / "unpacked", flat=True)
    for path in (root / "train").rglob("*.JPEG"):
        path.rename(root / "train" / path.name)
    for wnid in made.wnids:
        (root / "train" / wnid).rmdir()
    assert labels(indexed(opened(root, monkeypatch))) == truth(made)


def _renamed(root: Path) -> None:
    (root / VAL).rename(root / "ILSVRC2012_img_val (1).tar")


def _down(root: Path) -> None:
    (root / "x").mkdir()
    (root / VAL).rename(root / "x" / VAL)


def _all_down(root: Path) -> None:
    (root / "y").mkdir()
    for path in root.glob("ILSVRC*"):
        path.rename(root / "y" / path.name)


def _outer_tar_unpacked(root: Path) -> None:
    with tarfile.open(root / TRAIN) as tar:
        tar.extractall(root / "train", filter="data")
    (root / TRAIN).unlink()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_renamed, r"is it 'ILSVRC2012_img_val \(1\).tar'. rename it to"),
        (_down, f"it lies at x/{VAL}: move it up"),
        (_all_down, "one level too high, or more; set ALEXNET_SOURCE to .*/y"),
        (_outer_tar_unpacked, "the 3 tars of synsets .train/n.*tar. are not read"),
    ],
)
def test_the_one_thing_to_do_is_said(
    change: Callable[[Path], None], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small_ilsvrc(tmp_path)
    change(tmp_path)
    with pytest.raises(DataError, match=message):
        opened(tmp_path, monkeypatch)
