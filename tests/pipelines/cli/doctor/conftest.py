"""A folder whose source and store are there, and the checks of a doctor by name."""

from collections.abc import Iterable
from pathlib import Path

import pytest

from pipelines.cli.doctor.basic import Check
from pipelines.runtime.environment import Store
from tests.support.stage_folder import make_image_folder, make_stage_folder


@pytest.fixture
def stage_folder(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working directory of a stage, with images and a store."""
    make_stage_folder(tmp_path, fresh_store, make_image_folder(tmp_path / "pictures"), monkeypatch)


def check_named(checks: Iterable[Check], name: str) -> Check:
    """The only check of that name."""
    (check,) = [check for check in checks if check.name == name]
    return check
