"""Folders that may be no classes."""

import re
import textwrap
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.sources.folder import FolderSource
from pipelines.sources.places import LocalFolder
from tests.pipelines.sources.test_layout import both, opened


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            both("fold1", "fold2"),
            r"fold1/, fold2/ have folders of the same names in them \(a, b\); .*{train: fold1, val: fold2}",
        ),
        (["a/train/1.jpg", "a/test/2.jpg", "b/train/3.jpg", "b/test/4.jpg"], "a/, b/ .* which are splits; move a/train/ to"),
        (
            [*both("train/x", "train/y"), *both("val/x")],
            "train/x/, train/y/ have folders of the same .* move the lower ones up",
        ),
        (both("ILSVRC/Data/CLS-LOC/train"), "Kaggle's ImageNet.*; `alexnet use imagenet` reads it"),
        ([*both("b"), "a/1.jpg", "b/1.jpg"], "b/ has folders of the same names as beside it .*source.ignore to .b.;"),
        (
            [f"photos/images/{name}/1.jpg" for name in "ab"],
            "all its images lie in photos/images/; .*SOURCE to here/photos/images",
        ),
        (
            ["images/cat1.jpg", "images/cat_2.jpg", "images/3-dog.jpg", "images/dog (4).jpg"],
            "images/ has the name of a folder for images of all classes .by their names, of",
        ),
        (
            [*both("train"), "train/labels/1.txt", "train/images/1.jpg"],
            "train/images/ has the name of a folder for .* all classes",
        ),
        (["cat.1.jpg", "cat.2.jpg", "dog.1.jpg", "dog.2.jpg"], "in no class's folder: 4 images .by their names, of cat, dog"),
    ],
)
def test_a_level_that_may_be_another_one_stops(paths: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"here: {message}"):
        opened(*paths).files()


@pytest.mark.parametrize(
    "paths", [["a/images/1.jpg", "b/images/1.jpg"], ["a/2020/1.jpg", "a/2021/1.jpg", "b/2020/1.jpg"], ["a/x/1.jpg", "b/1.jpg"]]
)
def test_albums_are_no_classes(paths: list[str]) -> None:
    assert opened(*paths).class_names().keys() == {"a", "b"}


def test_a_splits_folder_of_all_its_images_is_gone_through() -> None:
    source = opened(*both("Final_Training/Images"), "Final_Test/Images/1.jpg")
    assert source.class_names().keys() == {"a", "b"}
    assert source.left_out().folders == {"Final_Test": 1}


@pytest.mark.parametrize(
    ("paths", "says"),
    [
        (["1.jpg", "2.jpg", "labels.csv"], "in no class's folder: 2 images; move them to CLASS/IMAGE"),
        (["images/1.jpg", "images/2.jpg", "labels.csv"], "images/ has the name .*; move them to CLASS/IMAGE"),
        (["train/1.jpg", "test/2.jpg", "labels.csv"], "test/, train/ have the names of splits, .* train/CLASS/IMAGE"),
        (["photos/1.jpg", "labels.csv"], "one class only, photos; it takes two to tell apart"),
        (["1.jpg", "train_labels.txt", "labels.csv"], "in no class's folder"),
    ],
)
def test_a_list_of_classes_beside_a_flat_folder_is_named_with_what_to_make_of_it(paths: list[str], says: str) -> None:
    with pytest.raises(DataError, match=rf"here: {says}.*, as .*labels\.csv.* may be: .*docs/data\.md") as refused:
        opened(*paths).files()
    assert ("train_labels.txt" in str(refused.value)) == ("train_labels.txt" in paths)


@pytest.mark.parametrize("others", [["README.txt", "classes.json"], [f"{number}.csv" for number in range(30)]])
def test_other_files_are_not_taken_for_lists(others: list[str]) -> None:
    with pytest.raises(DataError, match=r"move them to CLASS/IMAGE$"):
        opened("1.jpg", *others).files()


def test_folders_of_classes_are_made_of_a_list_as_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[3] / "docs/data.md").read_text(encoding="utf-8")
    program = textwrap.dedent(re.findall(r"(    import csv.*?)\n\n", page, re.DOTALL)[0])
    monkeypatch.chdir(tmp_path)
    for number in range(4):
        Path(f"{number}.jpg").write_bytes(b"x")
    Path("labels.csv").write_text("filename,label\n" + "".join(f"{each}.jpg,{'ab'[each % 2]}\n" for each in range(4)))
    exec(program)  # this repository's own page
    source = FolderSource(LocalFolder(tmp_path / "by-class"), "here")
    assert {image.path: image.wnid for image in source.images()} == {f"{'ab'[n % 2]}/{n}.jpg": "ab"[n % 2] for n in range(4)}
