from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.sources.archives.imagenet import ArchivesSource
from pipelines.sources.base import SourceConfig
from pipelines.sources.folder import FolderSource
from pipelines.sources.open import open_source
from tests.support.stage_folder import make_image_folder, make_small_ilsvrc


def test_a_missing_source_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    config = SourceConfig("folder", 0.25, ())
    with pytest.raises(DataError, match="ALEXNET_SOURCE: not set; the source `folder` reads the folder or s3://BUCKET/PREFIX"):
        open_source(config)
    monkeypatch.setenv("ALEXNET_SOURCE", str(tmp_path / "none"))
    with pytest.raises(DataError, match="none: no such folder; set ALEXNET_SOURCE to a folder or to s3://BUCKET/PREFIX"):
        open_source(config).files()
    monkeypatch.setenv("ALEXNET_SOURCE", "s3:///prefix")
    with pytest.raises(DataError, match="ALEXNET_SOURCE: 's3:///prefix' has no bucket; write s3://BUCKET/PREFIX"):
        open_source(config)


def test_a_source_is_opened_by_its_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    make_image_folder(tmp_path / "images")
    monkeypatch.setenv("ALEXNET_SOURCE", str(tmp_path / "images"))
    source = open_source(SourceConfig("folder", 0.25, ()))
    assert isinstance(source, FolderSource)
    assert source.where == str(tmp_path / "images")
    make_small_ilsvrc(tmp_path / "archives")
    monkeypatch.setenv("ALEXNET_SOURCE", str(tmp_path / "archives"))
    assert isinstance(open_source(SourceConfig("imagenet", 0.25, ())), ArchivesSource)
