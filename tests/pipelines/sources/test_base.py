import string

import pytest

from alexnet.config import build
from alexnet.errors import ParamsError
from pipelines.sources.base import SourceConfig, safe_keys

REST: dict[str, object] = {"splits": {}, "ignore": [], "members": {"image": None, "label": None}}


def test_digests_are_for_archives_alone() -> None:
    with pytest.raises(ParamsError, match=r"source.archives: must be \[\] for 'digits', got 'x.tar'; only imagenet has any"):
        build(
            SourceConfig, {"name": "digits", "val_fraction": 0.5, "archives": [{"file": "x.tar", "md5": ""}]} | REST, "source"
        )


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5])
def test_a_validation_fraction_out_of_range_is_refused(fraction: float) -> None:
    with pytest.raises(ParamsError, match="source.val_fraction: must be between 0 and 1"):
        build(SourceConfig, {"name": "digits", "val_fraction": fraction, "archives": []} | REST, "source")


def test_splits_without_train_are_refused() -> None:
    tree = REST | {"name": "folder", "val_fraction": 0.25, "archives": [], "splits": {"train": None, "val": "b"}}
    with pytest.raises(ParamsError, match="source.splits: names val without train, the folder of the training images"):
        build(SourceConfig, tree, "source")
    assert build(SourceConfig, tree | {"splits": {"train": "a", "val": None}}, "source").given_splits == {"train": "a"}


def test_keys_are_safe_short_and_different() -> None:
    names, places = ["a/b.c", "a-b-c", "A-B-C", "fine_1", "long" * 40], ["1", "2", "3", "4", "5"]
    keys = list(safe_keys(names, places))
    assert keys[3] == "fine_1"
    assert len({key.lower() for key in keys}) == 5
    assert all(len(key) <= 80 and set(key) <= {*string.ascii_letters, *string.digits, "-", "_"} for key in keys)
    assert next(safe_keys(names[2:], places[2:])) == "A-B-C"  # it depends on what it clashes with alone
