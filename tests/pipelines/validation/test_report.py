import json
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.validation.report import ValidationReport
from tests.support.trained_folder import VALIDATION


def test_a_report_is_read_as_it_was_written_and_equal_reports_are_equal_bytes(tmp_path: Path) -> None:
    VALIDATION.write(tmp_path / "a.json")
    assert ValidationReport.read(tmp_path / "a.json") == VALIDATION
    turned = replace(VALIDATION, splits=dict(reversed(VALIDATION.splits.items())))
    turned.write(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_only_critical_rules_that_fail_are_broken() -> None:
    assert VALIDATION.broken_rules() == []  # a warning failed
    broken = replace(VALIDATION.rules[0], success=False)
    assert replace(VALIDATION, rules=(broken, VALIDATION.rules[1])).broken_rules() == [broken]


def test_the_digest_is_of_everything_but_the_key_that_it_names() -> None:
    assert replace(VALIDATION, data_docs="elsewhere").digest() == VALIDATION.digest()
    assert replace(VALIDATION, used=11).digest() != VALIDATION.digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", r"validation\.json: .*; run the validate stage again"),
        ("[]", r"validation\.json.*must be a mapping.*; run the validate stage again"),
        ('{"images": "many"}', r"validation\.json.*missing source.*; run the validate stage again"),
    ],
)
def test_what_is_not_a_report_is_named(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "validation.json").write_text(text)
    with pytest.raises(DataError, match=message):
        ValidationReport.read(tmp_path / "validation.json")


def test_a_value_of_another_type_is_named_by_its_path(tmp_path: Path) -> None:
    VALIDATION.write(tmp_path / "validation.json")
    tree = json.loads((tmp_path / "validation.json").read_text())
    tree["splits"]["train"]["per_class"]["min"] = "few"
    (tmp_path / "validation.json").write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"splits\.train\.per_class\.min: must be a whole number, got 'few'; run the validate"):
        ValidationReport.read(tmp_path / "validation.json")
