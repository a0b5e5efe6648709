import dataclasses
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet.errors import DataError
from pipelines import validate
from pipelines.cli import pictures
from pipelines.config import params
from pipelines.runtime.environment import Store
from pipelines.sources.archives.imagenet import ArchivesSource
from pipelines.sources.base import Partition, SourceFile, SourceImage
from pipelines.sources.folder import FolderSource
from pipelines.sources.open import open_source
from pipelines.storage.bucket import Bucket
from pipelines.validation import index, scan_cache
from tests.support.stage_folder import INDEX, REPORT, StageFolder, make_image_folder, make_small_ilsvrc, make_stage_folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_image_folder(tmp_path / "images")


@pytest.fixture
def stage_folder(tmp_path: Path, fresh_store: Store, images: Path, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    (tmp_path / "work").mkdir()
    return make_stage_folder(tmp_path / "work", fresh_store, images, monkeypatch)


def report() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(REPORT.read_text())
    return found


def test_a_good_source_passes_without_output_and_gives_equal_bytes_twice(
    stage_folder: StageFolder, bucket: Bucket, capfd: pytest.CaptureFixture[str]
) -> None:
    outputs = []
    for _ in range(2):
        validate.main(INDEX, REPORT)
        outputs.append((INDEX.read_bytes(), REPORT.read_bytes()))
    assert outputs[0] == outputs[1]
    out, err = capfd.readouterr()
    assert out.splitlines() == ["validate: 16 images to use, 0 dropped; Data Docs: .local/data-docs/index.html"] * 2
    assert err == ""
    found = report()
    assert found["success"]
    assert found["faults"] == {}
    assert found["splits"] == {
        "train": {"classes": 2, "images": 12, "per_class": {"max": 6, "min": 6}},
        "val": {"classes": 2, "images": 4, "per_class": {"max": 2, "min": 2}},
    }
    assert found["data_docs"] in bucket.sizes("data-docs/")
    assert len({key.split("/")[1] for key in bucket.sizes("data-docs/")}) == 1


def test_a_test_split_is_counted_and_an_image_of_it_that_is_also_validated_on_stops_the_stage(
    stage_folder: StageFolder, images: Path
) -> None:
    for number, split in enumerate(("train", "train", "val", "test")):
        for label in range(2):
            (images / split / f"class{label}").mkdir(parents=True, exist_ok=True)
            (images / f"class{label}" / f"{number}.jpg").rename(images / split / f"class{label}" / f"{number}.jpg")
    for label in range(2):
        shutil.rmtree(images / f"class{label}")
    validate.main(INDEX, REPORT)
    assert {name: split["images"] for name, split in report()["splits"].items()} == {"train": 4, "val": 2, "test": 2}
    rules = [rule["rule"] for rule in report()["rules"]]
    assert "Splits are train and val and test" in rules
    assert "Every class has at least 1 images in test" in rules
    (images / "test/class0/copy.jpg").write_bytes((images / "val/class0/2.jpg").read_bytes())
    with pytest.raises(DataError, match=r"test/class0/copy.jpg is leaked \(the same bytes in more than one split\)"):
        validate.main(INDEX, REPORT)


def test_every_fault_is_reported_in_one_run_and_the_error_names_the_files(stage_folder: StageFolder, images: Path) -> None:
    (images / "class0" / "text.jpg").write_text("no image")
    (images / "class0" / "cut.jpg").write_bytes(pictures.jpeg(50)[:300])
    (images / "class0" / "zero.jpg").write_bytes(b"")
    (images / "class1" / "bomb.png").write_bytes(pictures.huge_png(30_000))
    (images / "class1" / "copy.jpg").write_bytes((images / "class1" / "1.jpg").read_bytes())
    (images / "class1" / "other.jpg").write_bytes((images / "class0" / "2.jpg").read_bytes())
    (images / "class1" / "small.png").write_bytes(pictures.encode_image(pictures.draw_image(60, 4, 4), "PNG"))
    (images / "class1" / "print.jpg").write_bytes(pictures.encode_image(pictures.draw_image(61).convert("CMYK")))
    INDEX.parent.mkdir()
    INDEX.write_bytes(b"of an earlier run")
    with pytest.raises(DataError) as error:
        validate.main(INDEX, REPORT)
    message = str(error.value)
    assert "class0/cut.jpg is truncated (an image that breaks off)" in message
    assert "class0/text.jpg is not_an_image (not an image of a format that is read)" in message
    assert "1 images more" in message
    assert "mend the source, or change validate.policy in params.yaml; all are in artifacts/validation.json" in message
    assert [path.name for path in INDEX.parent.iterdir()] == [REPORT.name]  # no index, old or half-written
    found = report()
    assert not found["success"]
    assert {kind: fault["keys"] for kind, fault in found["faults"].items()} == {
        "empty": ["class0_zero"],
        "not_an_image": ["class0_text"],
        "truncated": ["class0_cut"],
        "bomb": ["class1_bomb"],
        "conflicting": ["class0_2", "class1_other"],
        "duplicate": ["class1_copy", "class1_other"],
        "tiny": ["class1_small"],
        "cmyk": ["class1_print"],
    }
    against = {rule["rule"].split(":")[0]: rule["keys"] for rule in found["rules"] if not rule["success"]}
    assert against == {f"No image is {kind}": fault["keys"] for kind, fault in found["faults"].items()}
    assert {rule["severity"] for rule in found["rules"]} == {"critical", "warning", "info"}
    page = (validate.DOCS / "index.html").read_text()
    assert "Not fit to use" in page
    assert all(fault["keys"][0] in page for fault in found["faults"].values())


def test_what_is_dropped_or_repaired_does_not_stop(stage_folder: StageFolder, images: Path) -> None:
    (images / "class0" / "cut.jpg").write_bytes(pictures.jpeg(50)[:300])
    (images / "class1" / "really.jpg").write_bytes(pictures.encode_image(pictures.draw_image(51), "PNG"))
    stage_folder.params(validate={"policy": {"truncated": "drop"}})
    validate.main(INDEX, REPORT)
    found = report()
    assert (found["success"], found["images"], found["used"]) == (True, 18, 17)
    rows = {row["key"]: (row["fault"], row["action"]) for row in index.read(INDEX).to_pylist()}
    assert rows["class0_cut"] == ("truncated", "drop")
    assert rows["class1_really"] == ("wrong_format", "repair")
    assert rows["class1_1"] == (None, "use")


def test_counts_that_are_not_as_they_should_be_stop_the_stage(stage_folder: StageFolder) -> None:
    exact = {"min": 7, "max": 7}
    stage_folder.params(validate={"counts": {"classes": 3, "train_images": 13, "val_images": 4, "train_per_class": exact}})
    with pytest.raises(DataError) as error:
        validate.main(INDEX, REPORT)
    message = str(error.value)
    assert "not so: Every class has 7 to 7 images in train (class0, class1)" in message
    assert "not so: There are 13 images in train (observed 12)" in message
    assert "not so: There are 3 classes (observed 2)" in message
    assert "4 images in val" not in message


def test_other_counts_publish_other_data_docs(stage_folder: StageFolder, bucket: Bucket) -> None:
    validate.main(INDEX, REPORT)
    first = report()
    stage_folder.params(validate={"counts": {"train_images": 12}})
    validate.main(INDEX, REPORT)
    assert report()["index_sha256"] == first["index_sha256"]
    assert report()["data_docs"] != first["data_docs"]
    assert {first["data_docs"], report()["data_docs"]} <= bucket.sizes("data-docs/").keys()


def test_a_list_of_keys_that_is_cut_says_so(stage_folder: StageFolder, images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("validation.expectations", "validate"):
        monkeypatch.setattr(f"pipelines.{module}.KEYS", 2)
    for number in range(3):
        (images / "class0" / f"p{number}.jpg").write_bytes(pictures.encode_image(pictures.draw_image(80 + number), "PNG"))
        (images / "class0" / f"cut{number}.jpg").write_bytes(pictures.jpeg(90 + number)[:300])
    with pytest.raises(DataError, match="class0/cut0.jpg is truncated"):
        validate.main(INDEX, REPORT)
    found = report()
    assert [len(found["faults"][kind]["keys"]) for kind in ("wrong_format", "truncated")] == [2, 3]
    assert found["faults"]["wrong_format"]["note"] == "the first 2 of 3; all are in index.parquet"
    notes = {rule["rule"].split(":")[0]: rule["note"] for rule in found["rules"] if rule["note"]}
    assert notes == {
        "No image is truncated": "the first 2 of 3; all are in faults",
        "No image is wrong_format": "the first 2 of 3; all are in index.parquet",
    }
    page = (validate.DOCS / "index.html").read_text()
    assert "and more (the first 2 of 3; all are in index.parquet)" in page


def test_every_rule_that_does_not_hold_is_named_beside_images_that_stop(
    stage_folder: StageFolder, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "class0" / "cut.jpg").write_bytes(pictures.jpeg(50)[:300])

    def same_keys(found: list[tuple[object, str, SourceFile]], name_is_key: bool) -> list[str]:
        return [f"same-{file.path[:6]}" for _, _, file in found]

    monkeypatch.setattr("pipelines.sources.folder._keys", same_keys)
    with pytest.raises(DataError) as error:
        validate.main(INDEX, REPORT)
    assert "cut.jpg is truncated" in str(error.value)
    assert "not so: No key stands twice (same-class0, " in str(error.value)


def test_a_killed_run_goes_on_and_ends_as_an_unbroken_one(
    tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_small_ilsvrc(tmp_path / "archives", synsets=6, images=40, val_images=20)
    (tmp_path / "work").mkdir()
    make_stage_folder(tmp_path / "work", fresh_store, tmp_path / "archives", monkeypatch).params(source={"name": "imagenet"})
    validate.main(INDEX, REPORT)
    unbroken = INDEX.read_bytes(), REPORT.read_bytes()
    assert not scan_cache.FOLDER.exists()
    INDEX.unlink()
    victim = subprocess.Popen([sys.executable, "-c", KILLED])
    assert victim.wait(timeout=60) == -signal.SIGKILL
    finished = {path: path.stat().st_mtime_ns for path in scan_cache.FOLDER.rglob("*.parquet")}
    assert 2 <= len(finished) < 7
    assert not INDEX.exists()
    read: list[Partition] = []
    read_images = ArchivesSource.read_images

    def watched(source: ArchivesSource, partition: Partition) -> Iterator[tuple[SourceImage, bytes]]:
        read.append(partition)
        return read_images(source, partition)

    monkeypatch.setattr(ArchivesSource, "read_images", watched)
    validate.main(INDEX, REPORT)
    assert len(read) == 7 - len(finished)
    assert (INDEX.read_bytes(), REPORT.read_bytes()) == unbroken
    assert not scan_cache.FOLDER.exists()


# A run that is killed when it has read two pieces and a half.
KILLED = """
import itertools, os, signal
from pathlib import Path
from pipelines import validate
from pipelines.sources.archives.imagenet import ArchivesSource
read_images, images = ArchivesSource.read_images, itertools.count()

def killed(source, partition):
    for each in read_images(source, partition):
        if next(images) > 220:
            os.kill(os.getpid(), signal.SIGKILL)
        yield each

ArchivesSource.read_images = killed
os.environ["ALEXNET_WORKERS"] = "1"
validate.main(Path("artifacts/index.parquet"), Path("artifacts/validation.json"))
"""


def test_scanned_rows_are_used_again_under_another_policy_only(
    stage_folder: StageFolder, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "class0" / "cut.jpg").write_bytes(pictures.jpeg(50)[:300])
    with pytest.raises(DataError, match="cut.jpg is truncated"):
        validate.main(INDEX, REPORT)
    (seen,) = scan_cache.FOLDER.rglob("*.parquet")
    stage_folder.params(validate={"policy": {"truncated": "drop"}})
    with monkeypatch.context() as blind:
        blind.setattr(FolderSource, "read_images", None)  # a second look would fail
        validate.main(INDEX, REPORT)
    assert report()["faults"]["truncated"]["policy"] == "drop"

    given = params.load()
    source = open_source(given.source)

    def place(**changes: Any) -> Path:
        return scan_cache.open_scan_cache("folder", source, dataclasses.replace(given.validate, **changes)).folder

    assert place().name == seen.parent.name
    assert place(max_pixels=7) != place()
    assert place(min_side_px=7) != place()
    (images / "class0" / "1.jpg").write_bytes(pictures.jpeg(51))
    assert scan_cache.open_scan_cache("folder", open_source(given.source), given.validate).folder != place()


def test_a_class_of_which_every_image_is_dropped_is_named(stage_folder: StageFolder, images: Path) -> None:
    (images / "class2").mkdir()
    for number in range(3):
        (images / "class2" / f"{number}.png").write_bytes(pictures.encode_image(pictures.draw_image(70 + number, 3, 3), "PNG"))
    with pytest.raises(DataError, match=r"not so: Every class has at least 2 images in train \(class2\)"):
        validate.main(INDEX, REPORT)


def test_the_front_page_needs_no_network_and_links_to_every_page_of_great_expectations(
    stage_folder: StageFolder, images: Path
) -> None:
    (images / "class0" / "copy.jpg").write_bytes((images / "class0" / "1.jpg").read_bytes())
    validate.main(INDEX, REPORT)
    html = (validate.DOCS / "index.html").read_text()
    links = re.findall(r"""(?:src|href)=["']([^"']*)""", html)
    pages = [link for link in links if not link.startswith(("data:", "#"))]
    assert {validate.DOCS / page for page in pages} == set(validate.DOCS.glob("*/**/*.html"))
    assert len(pages) == 2 * 2  # of images and classes: the expectations, and their results
    assert sum(link.startswith("data:image/webp") for link in links) == 2 * 6 + 1  # of two classes, and the copy
    assert not [page for page in pages if "2012" in page or "2012" in (validate.DOCS / page).read_text()]  # no false time
    assert not re.search(r"<script|@import|url\(", html)
    theirs = [(validate.DOCS / page).read_text() for page in pages]
    assert all('<html lang="en">' in page and not re.search("newsletter|<i class=.fas", page) for page in theirs)
    assert {sign for page in theirs for sign in re.findall(">(&#[0-9]+;)</i>", page)} == {"&#10003;", "&#10007;"}  # of the copy


@pytest.mark.slow
def test_a_full_disk_is_one_line(stage_folder: StageFolder) -> None:
    validate.DOCS.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(validate.DOCS)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        command = [sys.executable, "-m", "pipelines.validate", "--listing", "x", "--index", str(INDEX), "--report", str(REPORT)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    finally:
        subprocess.run(["umount", "-l", validate.DOCS], check=True)
    assert re.fullmatch(r"validate: error: .*: No space left on device; free some space and run again.*\n", done.stderr), done
    assert not INDEX.exists()


def test_a_missing_bucket_is_reported_before_any_image_is_read(
    stage_folder: StageFolder, images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ALEXNET_BUCKET")
    (images / "class0" / "text.jpg").write_text("no image")
    with pytest.raises(DataError, match="no bucket: ALEXNET_BUCKET is not set and no local stack runs; run `make up`"):
        validate.main(INDEX, REPORT)


def test_a_bucket_that_is_not_there_is_named(stage_folder: StageFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_BUCKET", "nobody-made-this")
    with pytest.raises(DataError, match="s3://nobody-made-this"):
        validate.main(INDEX, REPORT)
