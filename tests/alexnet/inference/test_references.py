"""Which texts name releases, and who fetches them."""

import importlib.metadata
from pathlib import Path

import pytest

from alexnet.errors import DataError
from alexnet.inference.references import fetch, is_reference


def test_what_is_a_folder_here_is_no_reference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_reference("me@home")
    assert is_reference("s3://bucket/alexnet@latest")
    assert not is_reference("artifacts/model")
    (tmp_path / "me@home").mkdir()
    assert not is_reference("me@home")
    assert not is_reference(Path("me@home"))


def test_the_installed_entry_point_fetches(monkeypatch: pytest.MonkeyPatch) -> None:
    (point,) = importlib.metadata.entry_points(group="alexnet.releases")
    assert point.value == "pipelines.registry.client:fetch"
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [])
    with pytest.raises(DataError, match="alexnet@latest: nothing that fetches releases is installed here; give a folder"):
        fetch("alexnet@latest")
