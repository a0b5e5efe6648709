"""Tars that stock webdataset has written, as a source: on disk and in a real bucket, to the stage's own shards."""

import gzip
import json
import pickle
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import webdataset as wds

from alexnet.errors import DataError
from alexnet.shards.manifest import Manifest
from alexnet.shards.tar import index_tar
from pipelines import fetch, shard, validate
from pipelines.cli import pictures
from pipelines.runtime.environment import Store
from pipelines.sources.archives.webdataset import FOLDER, WebDatasetSource, find_splits
from pipelines.sources.base import MembersConfig, SourceConfig
from pipelines.sources.places import LocalFolder
from pipelines.storage.bucket import Bucket
from tests.support.stage_folder import INDEX, MANIFEST, PIXELS, REPORT, make_stage_folder

ANY = SourceConfig("webdataset", 0.25, ())


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def write(root: Path, name: str, samples: int, classes: int = 3, start: int = 0, **more: bytes) -> None:
    root.mkdir(exist_ok=True, parents=True)
    with wds.ShardWriter(str(root / f"{name}-%06d.tar"), maxcount=4, verbose=0, encoder=False) as sink:
        for number in range(start, start + samples):
            sink.write({"__key__": f"{number:05}", "jpg": pictures.jpeg(number), "cls": b"%d" % (number % classes)} | more)


def source(root: Path, config: SourceConfig = ANY) -> WebDatasetSource:
    return WebDatasetSource(LocalFolder(root), "here", config)


def test_tars_are_read_where_they_lie_and_splits_are_by_their_names(tmp_path: Path) -> None:
    write(tmp_path / "tars", "shop-train", 9)
    write(tmp_path / "tars", "shop-val", 4, start=100)
    opened = source(tmp_path / "tars")
    images = list(opened.images())
    assert Counter(image.split for image in images) == {"train": 9, "val": 4}
    assert opened.class_names() == {"0": "0", "1": "1", "2": "2"}
    assert opened.layout() == "13 images of 3 classes in shop-train-*.tar (train, 3 tars, 9), shop-val-*.tar (val, 1 tars, 4)"
    sent = pickle.loads(pickle.dumps(opened))
    read = {image.key: data for partition in opened.partitions() for image, data in sent.read_images(partition)}
    assert read == {f"{number:05}": pictures.jpeg(number) for number in (*range(9), *range(100, 104))}
    assert opened.read(images[5].path, images[5].offset, images[5].size) == read[images[5].key]


def test_headers_are_read_once_until_a_tar_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "tars", "train", 8)
    first = list(source(tmp_path / "tars").images())
    notes = sorted(FOLDER.iterdir())
    assert len(notes) == 2
    with monkeypatch.context() as patch:
        patch.setattr(LocalFolder, "read", None)
        assert list(source(tmp_path / "tars").images()) == first
    notes[0].write_bytes(notes[0].read_bytes()[:-9])  # a damaged note is written again
    assert list(source(tmp_path / "tars").images()) == first
    write(tmp_path / "tars", "train", 8, start=50)
    assert [image.key for image in source(tmp_path / "tars").images()] == [f"{number:05}" for number in range(50, 58)]
    assert not set(notes) & {*FOLDER.iterdir()}


def test_classes_that_are_numbers_keep_their_order_and_get_names(tmp_path: Path) -> None:
    write(tmp_path, "shard", 24, classes=12)
    assert list(source(tmp_path).class_names()) == [f"{number:02}" for number in range(12)]
    (tmp_path / "classes.json").write_text(json.dumps({"3": "hat", "n1": "cap"}))
    assert source(tmp_path).class_names()["03"] == "hat"
    (tmp_path / "classnames.txt").write_text("".join(f"name {number}\n" for number in range(101)))
    names = source(tmp_path).class_names()
    assert (len(names), list(names)[100], names["100"], names["011"]) == (101, "100", "name 100", "name 11")


def test_equal_keys_of_two_tars_are_two_images(tmp_path: Path) -> None:
    write(tmp_path, "a-train", 4)
    write(tmp_path, "a-val", 4)
    keys = [image.key for image in source(tmp_path).images()]
    assert len({*keys}) == 8
    assert all(key.startswith(f"{number % 4:05}-") for number, key in enumerate(keys))


def test_what_is_not_taken_is_counted(tmp_path: Path) -> None:
    root = tmp_path / "tars"
    write(root, "train", 4, txt=b"a caption")
    write(root, "more-train", 4, start=8, cls=b"")
    (root / "loose.jpg").write_bytes(pictures.jpeg(1))
    (root / "notes.md").touch()
    both = SourceConfig("webdataset", 0.25, (), {"train": "more-", "val": "train-00"})
    assert list(source(root, both).left_out().lines()) == [
        "not taken, files of other kinds: 4 .txt, 1 .md",
        "not taken, in no class's folder: 1 image (loose.jpg)",
        "of no known class: 4 images (00008, 00009, 00010, 00011), the fault unknown_class",
    ]
    one = SourceConfig("webdataset", 0.25, (), {"train": "train-*.tar"})
    lines = list(source(root, one).left_out().lines())
    assert "not taken, in no split that source.splits names: 1 tars (more-train-000000.tar)" in lines


@pytest.mark.parametrize(
    ("paths", "given", "splits"),
    [
        (["train/0.tar", "train/1.tar", "validation/0.tar"], {}, ["train", "train", "val"]),
        (["a-train-0.tar", "a-test-0.tar"], {}, [None, "test"]),
        (["imagenet1k-train-0000.tar", "imagenet1k-validation-00.tar"], {}, ["train", "val"]),
        (["00000.tar", "00001.tar"], {}, [None, None]),
        (["a/0.tar", "b/0.tar", "b/1.tar"], {"train": "b", "val": "a/"}, ["val", "train", "train"]),
        (["x-00.tar", "x-01.tar", "x-10.tar"], {"train": "x-0", "val": "x-1*.tar"}, ["train", "train", "val"]),
        (["train-0.tar", "val-0.tar"], {"train": "."}, [None, None]),
    ],
)
def test_a_split_is_in_the_name_or_given(paths: list[str], given: Any, splits: list[str | None]) -> None:
    assert list(find_splits(paths, SourceConfig("webdataset", 0.25, (), given), "here").values()) == splits


@pytest.mark.parametrize(
    ("paths", "given", "message"),
    [
        (
            ["train-0.tar", "extra-0.tar"],
            {},
            r"the name of extra-\*.tar does not say which split it is; there are train-",
        ),
        (["train-a-0.tar", "train-b-0.tar"], {}, "does not say which split it is"),
        (["test-0.tar"], {}, r"the name of test-\*.tar does not say"),
        (["a-0.tar"], {"train": "b-{0..3}.tar"}, r"source.splits.train: no tar of here fits 'b-\{0..3\}.tar'; write a folder"),
        (["a-0.tar"], {"train": "a", "val": "a-0"}, "source.splits: a-0.tar fits both train and val; write longer prefixes"),
    ],
)
def test_names_that_leave_a_choice_are_refused(paths: list[str], given: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        find_splits(paths, SourceConfig("webdataset", 0.25, (), given), "here")


def test_a_place_without_usable_tars_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="here: has no tars; the source `webdataset` needs files NAME.tar of samples"):
        source(tmp_path).files()
    write(tmp_path, "train", 2, classes=1)
    with pytest.raises(DataError, match="here: the tars hold one class only, '0'; a sample is KEY.jpg and KEY.cls"):
        source(tmp_path).files()
    with pytest.raises(DataError, match=r"the tars hold no image whose class is told; .*; set source.members in params.yaml"):
        source(tmp_path, SourceConfig("webdataset", 0.25, (), members=MembersConfig(None, "label"))).files()
    (tmp_path / "val-000000.tar.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match=r"here/val-000000.tar.gz: is compressed; .*: unpack it to a .tar, or name it"):
        source(tmp_path).files()


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_tars_become_shards_with_the_same_labels(
    place: str, tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "tars", "train", 24)
    write(tmp_path / "tars", "val", 6, start=100)
    write(tmp_path / "tars", "unlabelled-train", 1, start=200, cls=b"")
    bucket = Bucket(fresh_store.bucket, fresh_store)
    for path in (tmp_path / "tars").iterdir():
        bucket.upload(path, f"given/{path.name}")
    work = tmp_path / "work"
    work.mkdir()
    folder = make_stage_folder(work, fresh_store, tmp_path / "tars", monkeypatch)
    if place == "bucket":
        monkeypatch.setenv("ALEXNET_SOURCE", f"s3://{fresh_store.bucket}/given")
    own: dict[str, Any] = {"name": "webdataset", "splits": {"train": "*train-*", "val": "val-"}}
    folder.params(source=own, model={"classes": 3})
    listing = Path("artifacts/listing.json")
    fetch.main(Path("artifacts/source.json"), listing, Path("artifacts/purpose.json"))
    assert "of no known class: 1 image (00200), the fault unknown_class" in capsys.readouterr().out
    with pytest.raises(DataError, match=r"unlabelled-train-000000.tar \(00200\) is unknown_class"):
        validate.main(INDEX, REPORT, listing)
    folder.params(source=own, model={"classes": 3}, validate={"policy": {"unknown_class": "drop"}})
    validate.main(INDEX, REPORT, listing)
    shard.main(INDEX, MANIFEST, PIXELS)
    manifest = Manifest.read(MANIFEST)
    labels: dict[str, int] = {}
    for shards in manifest.splits.values():
        for each in shards:
            found = index_tar(bucket.get(manifest.prefix + each.name), each.name)
            labels |= dict(zip(found.keys, found.labels.tolist(), strict=True))
    assert labels == {f"{number:05}": number % 3 for number in (*range(24), *range(100, 106))}
