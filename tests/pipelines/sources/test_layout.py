"""What folders are taken for, and what is said of the others."""

from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.sources.base import SourceConfig
from pipelines.sources.folder import FolderSource
from tests.pipelines.sources.test_folder import Listed


def opened(*paths: str, splits: dict[str, str] | None = None, ignore: tuple[str, ...] = ()) -> FolderSource:
    config = SourceConfig("folder", 0.25, (), splits or {}, ignore)  # type: ignore[arg-type]  # also names that are no split
    return FolderSource(Listed(Path(), paths=paths), "here", config=config)


def both(*folders: str) -> list[str]:
    """An image in each of two classes of every folder."""
    return [f"{folder}/{wnid}/{number}.jpg" for number, folder in enumerate(folders) for wnid in "ab"]


def splits(source: FolderSource) -> dict[str, str | None]:
    return {image.path.partition("/")[0]: image.split for image in source.images()}


def test_one_line_says_what_was_understood() -> None:
    source = opened(*both("Training", "Valid", "evaluation"))
    assert splits(source) == {"Training": "train", "Valid": "val", "evaluation": "test"}
    assert (
        source.layout()
        == "6 images of 2 classes in Training/ (train, 2), Valid/ (val, 2), evaluation/ (test, 2); SPLIT/CLASS/IMAGE"
    )
    plain = opened("a/1.jpg", "a/more/2.jpg", "b/1.jpg").layout()
    assert plain.startswith(
        "3 images of 2 classes; CLASS/.../IMAGE (1 image in folders inside a class's folder, taken for that class"
    )
    assert plain.endswith("source.val_fraction is drawn from the training images")


def test_a_folder_that_repeats_the_splits_name_is_gone_through() -> None:
    source = opened(*both("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred/1.jpg")
    assert splits(source) == {"seg_train": None, "seg_test": "test"}
    assert list(source.left_out().lines()) == [
        "not taken, folders that are no split, or have no class's folder in them: seg_pred/ (1 image)"
    ]


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (
            both("train", "eval"),
            "eval/ may be the validation or the test split; set source.splits to {train: train, val: eval} or",
        ),
        (
            both("train", "val", "more"),
            "more/ looks like a split, and its name does not say which; set source.splits to .* to .more.",
        ),
        (both("train", "trainval"), "trainval/ looks like a split"),
        (both("train", "Training"), "Training/ and train/ are both the split train by their names; .* set source.splits"),
        ([*both("train"), "val/"], "val/ has the name of a split and no images in it; fill or remove it"),
        ([*both("train"), "val/a/1.heic"], "val/ has the name of a split and no images in it"),
        (["train/1.jpg", "test/2.jpg"], "test/, train/ have the names of splits, and no train/ with classes' folders in it"),
        (both("val", "cats"), "val/ has the name of a split beside cats/; name the training images' folder in source.splits"),
        (both("photos/train", "photos/val"), "its splits lie in photos/; set ALEXNET_SOURCE to it: here/photos"),
        (both("x/y/Train"), "its splits lie in x/y/; set ALEXNET_SOURCE to it: here/x/y"),
        (both("v1/train", "v2/train"), "its splits lie in v1/, v2/; set ALEXNET_SOURCE to one of them: here/v1"),
        (
            both("photos"),
            "all its images lie in photos/; if the folders in it are the classes, set ALEXNET_SOURCE to here/photos",
        ),
        (["a/1.heic", "b/2.heic"], "no images in class folders; .*; it has 2 .heic"),
        (["train/a/1.jpg", "train/B/1.jpg", "val/a/1.jpg", "val/b/1.jpg"], ".*'B' and 'b' differ in spelling alone"),
        ([*both("train"), "val/a/1.jpg", "val/b/1.jpg", *both("train_old")], "train_old/ .* {train: train_old, val: val}, or"),
        ([*both("train", "val", "public_test")], ".*source.splits to {train: train, val: val, test: public_test}, or"),
        ([*both("train", 'x": ,')], '.*source.splits to {train: train, val: "x.": ,"} or'),
        (
            ["a/1", "b/2.zip"],
            "no images in class folders; .* 1 without a suffix, 1 .zip; .zip are archives: unpack ",
        ),
        ([*both("train"), "val/images/1.jpg"], "val/ has no folder of a class of the training images; needs val/CLASS/IMAGE"),
    ],
)
def test_two_readings_are_no_reading(paths: list[str], message: str) -> None:
    with pytest.raises(DataError, match=f"here: {message}"):
        opened(*paths).files()


def test_a_source_of_which_nothing_is_left_says_what_left_it_out() -> None:
    with pytest.raises(DataError, match="it has 2 files that source.ignore leaves out"):
        opened(*both("train"), ignore=("*",)).files()


def test_what_the_error_says_cures_it() -> None:
    paths = both("train", "eval")
    assert splits(opened(*paths, splits={"train": "train", "test": "eval"})) == {"train": None, "eval": "test"}
    assert splits(opened(*paths, splits={"train": "train", "val": "eval"})) == {"train": "train", "eval": "val"}
    assert splits(opened(*both("train", "val", "more"), ignore=("more",))) == {"train": "train", "val": "val"}
    vehicles = opened("train/1.jpg", "test/2.jpg", splits={"train": "."})
    assert vehicles.class_names() == {"test": "test", "train": "train"}
    assert opened(*both("fold1", "fold2"), splits={"train": "."}).class_names().keys() == {"fold1", "fold2"}
    assert splits(opened(*both("photos/a", "photos/b"), splits={"train": "photos/a", "val": "photos/b/"})) == {"photos": "val"}
    with pytest.raises(DataError, match="source.splits.val: here has no images in evil/; folders with images: eval/, train/"):
        opened(*paths, splits={"train": "train", "val": "evil"}).files()


def test_all_that_is_not_taken_is_said() -> None:
    others = [
        "notes.txt",
        "1.jpg",
        "extra/9.jpg",
        "old/z.jpg",
        "empty/",
        *(f"train/a/{name}" for name in ("1.heic", "2.HEIC", "x")),
    ]
    litter = [".DS_Store", "@eaDir/", "._1.jpg", "thumbs/1.jpg", "Thumbs.db"]
    paths = [*both("train", "val"), *others, *(f"train/b/{name}" for name in litter)]
    source = opened(*paths, ignore=("old",))
    first, *rest = source.left_out().lines()
    assert first.startswith("not taken, files of other kinds: 2 .heic, 1 .txt, 1 without a suffix; .heic are photographs")
    assert rest == [
        "not taken, folders that are no split, or have no class's folder in them: empty/ (no images), extra/ (1 image)",
        "not taken, in no class's folder: 1 image (1.jpg)",
        "not taken, left by systems and other programs: 1 .DS_Store, 1 ._*, 1 @eaDir/, 1 Thumbs.db, 1 thumbs/",
        "not taken, as source.ignore says: 1 old",
    ]
    assert sum(1 for _ in source.images()) == 4


def test_a_class_may_be_called_as_previews_are() -> None:
    assert opened("thumbs/1.jpg", "fingers/2.jpg").class_names() == {"fingers": "fingers", "thumbs": "thumbs"}


def test_a_million_names_are_understood_in_seconds() -> None:
    """No time is measured: a pass that is not linear would not end."""
    source = opened(*(f"{split}/c{i % 50}/{i}.jpg" for split in ("train", "val") for i in range(20_000)))
    assert source.num_images() == 40_000


def test_a_pattern_that_fits_nothing_is_said() -> None:
    source = opened(*both("train"), "raw/1.jpg", ignore=("./raw/", "old", "/data/raw"))
    assert list(source.left_out().lines()) == [
        "not taken, as source.ignore says: 1 ./raw/",
        "source.ignore: nothing is left out by /data/raw, old; a pattern is of a name, or of a path below the source",
    ]


def test_a_split_may_lie_beside_the_classes_of_another() -> None:
    paths = [*both("x"), *both("x/val"), *both("x/val")]
    paths = [path.removeprefix("x/") for path in dict.fromkeys(paths)]
    with pytest.raises(DataError, match=r"val/ has the name of a split beside a/, b/; .* as in {train: ., val: val}; or"):
        opened(*paths).files()
    source = opened(*paths, splits={"train": ".", "val": "val"})
    assert {(image.path, image.split, image.wnid) for image in source.images()} == {
        ("a/0.jpg", "train", "a"),
        ("b/0.jpg", "train", "b"),
        ("val/a/0.jpg", "val", "a"),
        ("val/b/0.jpg", "val", "b"),
    }
    assert source.layout() == "4 images of 2 classes in ./ (train, 2), val/ (val, 2); CLASS/IMAGE"
    deep = opened(*both("d"), *both("d/v/val"), splits={"train": "d", "val": "d/v/val"})
    assert splits(deep) == {"d": "val"}
    assert deep.class_names().keys() == {"a", "b"}
    with pytest.raises(DataError, match=r"test/1.jpg: an image in no class's folder"):
        opened(*paths, "test/1.jpg", splits={"train": ".", "val": "val", "test": "test"}).files()


def test_two_splits_of_one_folder_are_named() -> None:
    with pytest.raises(DataError, match=r"source.splits: train and val are both x; name a folder for each"):
        opened(*both("x"), splits={"train": "x", "val": "./x/"}).files()
