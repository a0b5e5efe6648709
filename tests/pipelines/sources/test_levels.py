"""Folders that may be no classes."""

import pytest

from alexnet.errors import DataError
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
