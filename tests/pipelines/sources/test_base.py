import pytest

from alexnet.config import build
from alexnet.errors import ParamsError
from pipelines.sources.base import SourceConfig

REST: dict[str, object] = {"splits": {}, "ignore": []}


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
    tree = {"name": "folder", "val_fraction": 0.25, "archives": [], "splits": {"train": None, "val": "b"}, "ignore": []}
    with pytest.raises(ParamsError, match="source.splits: names val without train, the folder of the training images"):
        build(SourceConfig, tree, "source")
    assert build(SourceConfig, tree | {"splits": {"train": "a", "val": None}}, "source").given_splits == {"train": "a"}
