"""Images that are masks of others by their names."""

import json
import re

import pytest

from alexnet.errors import DataError
from pipelines.sources.masks import find_masks
from tests.pipelines.sources.test_layout import both, opened


def pairs(*ends: str, folder: str = "a", count: int = 4) -> list[str]:
    """Photographs, and for each a file of every ending."""
    return [f"{folder}/{number}{end}" for number in range(count) for end in (".jpg", *ends)]


@pytest.mark.parametrize(
    ("paths", "said", "patterns"),
    [
        (pairs("_mask.png"), "4 images are masks .* such as a/0_mask.png of a/0.jpg", ["*_mask.png"]),
        (pairs("_seg.png"), "4 images", ["*_seg.png"]),
        (pairs("_label.png"), "4 images", ["*_label.png"]),
        (pairs("-GT.bmp"), "4 images", ["*-GT.bmp"]),
        (pairs(" (1)_mask.png", " (1).png"), "4 images .* such as a/0 \\(1\\)_mask.png of a/0 \\(1\\).png", ["*_mask.png"]),
        (pairs("_mask.png", "_mask_1.png"), "8 images", ["*_mask.png", "*_mask_*.png"]),
        (pairs("_mask.png")[:6], "3 images", ["*_mask.png"]),
        ([*pairs(folder="a"), *(f"a/masks/{number}.png" for number in range(3))], "3 images .* a/masks/0.png of", ["masks"]),
        ([*pairs("_mask.png"), *pairs("_seg.gif", folder="c")], "8 images", ["*_mask.png", "*_seg.gif"]),
        ([*pairs("_mask.png"), "b/2_mask.tif", "b/2.jpg"], "5 images", ["*_mask.png", "*_mask.tif"]),
    ],
)
def test_masks_beside_images_stop_with_the_setting_that_leaves_them_out(
    paths: list[str], said: str, patterns: list[str]
) -> None:
    every = [*paths, "b/1.jpg"]
    with pytest.raises(DataError, match=f"here: {said}.*; or, if they are images of their classes, source.spl") as refused:
        opened(*every).files()
    ignore = re.search(r"set source\.ignore to (\[.*?\]);", str(refused.value))
    assert ignore
    assert json.loads(ignore[1]) == patterns
    cured = opened(*every, ignore=tuple(patterns))
    assert cured.num_images() == len(every) - int(said.split(maxsplit=1)[0])
    taken = opened(*every, splits={"train": "."})
    assert taken.num_images() == len(every)
    assert next(line for line in taken.left_out().lines() if "may be no images of their classes" in line)


def test_what_is_ignored_already_stays_so() -> None:
    with pytest.raises(DataError, match=r'set source\.ignore to \["old", "\*_mask\.png"\]; or'):
        opened(*pairs("_mask.png"), "b/1.jpg", "old/1.jpg", ignore=("old",)).files()


@pytest.mark.parametrize(
    "paths",
    [
        [*pairs(), "a/1_label.jpg"],  # one of four
        [*pairs(count=10), *(f"a/{number}_label.jpg" for number in range(4))],
        ["a/cat.jpg", "a/cat_mask.jpg"],  # one alone
        [f"with_mask/with_mask_{number}.jpg" for number in range(4)],
        [f"mask/{number}.jpg" for number in range(4)],  # a class
        [*(f"mask/{number}.jpg" for number in range(4)), *(f"no_mask/{number}.jpg" for number in range(4))],
        pairs("_2.jpg", "_flip.jpg", "_left.jpg"),
        [f"a/{number}_mask.jpg" for number in range(4)],  # of nothing that is here
        [*(f"a/{number}.jpg" for number in range(4)), *(f"b/{number}_mask.jpg" for number in range(4))],
    ],
)
def test_ordinary_names_are_no_masks(paths: list[str]) -> None:
    assert opened(*paths, "c/1.jpg").num_images() == len(paths) + 1


def test_splits_keep_theirs_in_the_other_remedy() -> None:
    paths = both("train", "val") + pairs("_mask.png", folder="train/a")
    with pytest.raises(DataError, match=r"source.splits to {train: train, val: val} in params.yaml"):
        opened(*paths).files()


def test_nothing_is_found_in_nothing() -> None:
    assert find_masks([]) is None
