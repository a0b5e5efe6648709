from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from alexnet.images.inspect import Range
from pipelines.config import params
from pipelines.validation import index
from pipelines.validation.expectations import check_index, class_rules, cut_note

CONFIG = params.load().validate


def table(*actions: str) -> pa.Table:
    """An index of one class, `a`; a repaired image is grey."""
    rows: list[dict[str, object]] = [
        {"key": f"k{i}", "split": "val" if i == 0 else "train", "wnid": "a", "label": 0, "sha256": f"{i:064x}"}
        | {"faults": "grey" if action == "repair" else None, "action": action}
        for i, action in enumerate(actions)
    ]
    return pa.Table.from_pylist(rows, index.SCHEMA)


def test_broken_expectations_name_the_images_and_the_classes(tmp_path: Path) -> None:
    config = replace(CONFIG, policy=CONFIG.policy | {"grey": "repair"})
    docs = tmp_path / "it's $HOME (${PATH}) \\$5" / "docs"  # which Great Expectations would take for variables
    rules = check_index(table("use", "use", "repair"), config, ["a", "b"], docs, "ab" * 32)
    broken = {
        rule.rule.split(":")[0]: (rule.about, rule.severity, rule.unexpected, rule.keys) for rule in rules if not rule.success
    }
    assert broken == {
        "No image is grey": ("faults", "info", 1, ("k2",)),
        "Every class has at least 2 images in train": ("classes", "critical", 1, ("b",)),
        "Every class has at least 1 images in val": ("classes", "critical", 1, ("b",)),
    }
    pages = sorted(docs.glob("validations/*/*"))
    assert [path.name for path in tmp_path.iterdir()] == [docs.parent.name]
    assert [page.name for page in pages] == ["ab" * 8] * 2


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        (Range(2, None), "Every class has at least 2 images in train"),
        (Range(None, 3), "Every class has at most 3 images in train"),
        (Range(1300, 1300), "Every class has 1,300 to 1,300 images in train"),
    ],
)
def test_a_range_of_counts_is_described(counts: Range, text: str) -> None:
    config = replace(CONFIG, counts=replace(CONFIG.counts, train_per_class=counts))
    assert class_rules(config, ("train", "val"))[0].description == text


def test_the_classes_of_a_test_split_are_counted_as_validations() -> None:
    assert [rule.description for rule in class_rules(CONFIG, ("train", "val", "test"))] == [
        "Every class has at least 2 images in train",
        "Every class has at least 1 images in val",
        "Every class has at least 1 images in test",
    ]


def test_only_a_list_that_was_cut_has_a_note() -> None:
    assert cut_note(1000, 1000, "faults") == ""
    assert cut_note(1000, 1234, "index.parquet") == "the first 1,000 of 1,234; all are in index.parquet"
