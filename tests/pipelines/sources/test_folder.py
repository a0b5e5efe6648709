from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError
from pipelines.runtime.environment import Store
from pipelines.sources.base import SourceConfig, SourceFile
from pipelines.sources.folder import FolderSource
from pipelines.sources.open import open_source
from pipelines.sources.places import LocalFolder
from pipelines.storage.bucket import Bucket


def make(root: Path, *paths: str) -> FolderSource:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return FolderSource(LocalFolder(root), "here")


@dataclass(frozen=True)
class Listed(LocalFolder):
    """A tree that is only a list of names."""

    paths: tuple[str, ...] = ()

    def list(self) -> list[SourceFile]:
        return [SourceFile(path, 1, "") for path in sorted(self.paths)]


def listed(*paths: str) -> list[tuple[str, str | None, str]]:
    return [(item.key, item.split, item.path) for item in FolderSource(Listed(Path(), paths=paths), "here").images()]


def test_one_folder_a_class_has_no_split_of_its_own(tmp_path: Path) -> None:
    source = make(tmp_path, "hat/1.jpg", "cap/2.PNG", "cap/deeper/3.jpeg", "notes.txt", "hat/notes.txt", "hat/.hidden.jpg")
    assert [(item.key, item.split, item.wnid, item.path, item.offset, item.size) for item in source.images()] == [
        ("cap_2", None, "cap", "cap/2.PNG", 0, 9),
        ("cap_3", None, "cap", "cap/deeper/3.jpeg", 0, 17),
        ("hat_1", None, "hat", "hat/1.jpg", 0, 9),
    ]
    assert source.class_names() == {"cap": "cap", "hat": "hat"}
    assert [file.path for file in source.files()] == [
        "cap/2.PNG",
        "cap/deeper/3.jpeg",
        "hat/1.jpg",
        "hat/notes.txt",
        "notes.txt",
    ]
    assert source.read("hat/1.jpg", 4, 3) == b"1.j"


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_given_splits_are_kept(name: str) -> None:
    assert listed("train/a/1.jpg", "train/b/2.jpg", f"{name}/a/3.jpg", f"{name}/b/4.jpg") == [
        ("a_1", "train", "train/a/1.jpg"),
        ("b_2", "train", "train/b/2.jpg"),
        ("a_3", "val", f"{name}/a/3.jpg"),
        ("b_4", "val", f"{name}/b/4.jpg"),
    ]


@pytest.mark.parametrize(("val", "splits"), [("validation", {"train", "val", "test"}), (None, {None, "test"})])
def test_test_images_are_a_split_and_never_stand_in_for_validation(val: str | None, splits: set[str | None]) -> None:
    paths = [f"{split}/{wnid}/1.jpg" for split in ("train", val, "test") for wnid in "ab" if split]
    found = listed(*paths)
    assert len(found) == len(paths)
    assert {split for _, split, _ in found} == splits
    assert all((split == "test") == path.startswith("test/") for _, split, path in found)


def test_imagenets_test_images_are_left_out() -> None:
    paths = tuple(
        f"{split}/{wnid}/{wnid}_{number}.jpg" for number, split in enumerate(("train", "val", "test")) for wnid in "ab"
    )
    source = FolderSource(Listed(Path(), paths=paths), "here", name_is_key=True)
    assert {image.split for image in source.images()} == {"train", "val"}


def test_a_training_folder_alone_has_no_split_of_its_own() -> None:
    assert [split for _, split, _ in listed("train/a/1.jpg", "train/b/2.jpg")] == [None, None]


def test_keys_are_safe_and_names_that_clash_get_different_ones() -> None:
    paths = ["a/x.y.jpg", "a/x y.jpg", "a/x-y.png", "b/n.jpg", "b/b_7.jpg", f"b/{'long' * 40}.jpg", "b/é.jpg"]
    keys = [key for key, _, _ in listed(*paths)]
    assert "b_n" in keys
    assert "b_7" in keys  # the class is not repeated
    assert sum(key.startswith("a_x-y-") for key in keys) == 3
    assert len(set(keys)) == len(keys)


@settings(deadline=None)
@given(
    st.sets(
        st.text("aB.- é/_", min_size=1, max_size=100).filter(lambda name: name.strip("/.") and "/." not in f"/{name}"),
        min_size=1,
        max_size=12,
    )
)
def test_every_key_is_one_that_a_shard_may_hold_and_stands_once(names: set[str]) -> None:
    from alexnet.shards.tar import Sample, index_tar, tar_of

    paths = {f"a/{name.strip('/')}.jpg".replace("//", "/") for name in names}
    keys = [key for key, _, _ in listed(*paths, "b/1.jpg")]
    assert index_tar(tar_of(Sample(key, 0, b"") for key in keys), "shard").keys == keys


def test_keys_do_not_depend_on_what_else_is_there() -> None:
    assert listed("a/1.jpg", "b/1.jpg")[0] in listed("a/1.jpg", "a/2.jpg", "b/1.jpg")


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            ["readme.txt"],
            "here: no images in class folders; it needs CLASS/IMAGE, or train/CLASS/IMAGE and val/CLASS/IMAGE, with",
        ),
        (["1.jpg"], "here: in no class's folder: 1 image; move them to CLASS/IMAGE"),
        (["a/1.jpg", "b/notes.txt"], "here: no images in class b; add some, remove the class's folder, or name it"),
        (["a/1.jpg", "b/"], "here: no images in class b; add some"),
        (["a/1.jpg"], "here: one class only, a; it takes two to tell apart"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg"], "here: no images in class val/b; add some"),
        (
            ["train/a/1.jpg", "train/b/1.jpg", "val/ILSVRC2012_val_00000001.JPEG"],
            "here/val/ILSVRC2012_val_00000001.JPEG: one of ImageNet's images, whose classes a list tells; `alexnet use",
        ),
        (["train/a/1.jpg", "train/b/1.jpg", "test/a/1.jpg"], "here: no images in class test/b; add some"),
    ],
)
def test_what_is_no_source_is_named(paths: list[str], message: str) -> None:
    with pytest.raises(DataError) as error:
        listed(*paths)
    assert str(error.value).startswith(message)


def test_an_empty_folder_is_an_empty_class(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    with pytest.raises(DataError, match="no images in class b"):
        list(make(tmp_path, "a/1.jpg").images())


def test_a_bucket_is_the_same_source_as_a_folder(
    bucket: Bucket, fresh_store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    local = make(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg")
    for path in ("train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/1.jpg", "val/.x/1.jpg"):
        bucket.put(f"some/where/{path}", path.encode())
    bucket.put("some/whereelse/c/1.jpg", b"other")
    monkeypatch.setattr("pipelines.runtime.environment.store", lambda: fresh_store)
    monkeypatch.setenv("ALEXNET_SOURCE", f"s3://{bucket.name}/some/where/")
    remote = open_source(SourceConfig("folder", 0.25, ()))
    assert [partition.images for partition in remote.partitions()] == [partition.images for partition in local.partitions()]
    assert remote.read("train/a/1.jpg", 6, 4) == local.read("train/a/1.jpg", 6, 4) == b"a/1."
    before = remote.files()
    bucket.put("some/where/train/a/1.jpg", b"TRAIN/a/1.jpg")
    changed = open_source(SourceConfig("folder", 0.25, ())).files()
    assert [a == b for a, b in zip(before, changed, strict=True)] == [False, True, True, True]


@pytest.mark.parametrize("name", ["val", "valid", "validation", "train"])
def test_an_image_beside_the_classes_of_a_split_is_named(name: str) -> None:
    with pytest.raises(
        DataError, match=f"here/{name}/3.jpg: an image in no class's folder; move it to {name}/CLASS/, or remove"
    ):
        listed("train/a/1.jpg", "train/b/2.jpg", f"{name}/3.jpg")


def test_images_to_predict_are_left_out() -> None:
    assert [split for _, split, _ in listed("train/a/1.jpg", "train/b/2.jpg", "test/3.jpg")] == [None, None]
