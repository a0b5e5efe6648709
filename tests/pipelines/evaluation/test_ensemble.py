"""Networks of folders and of the registry, opened as one."""

from pathlib import Path

import pytest

from alexnet.errors import DataError, ParamsError
from pipelines.evaluation.ensemble import open_ensemble, pull
from pipelines.runtime.environment import Store
from tests.support.trained_folder import TrainedFolder, make_trained_folder


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


def test_weights_that_do_not_fit_are_named(place: TrainedFolder) -> None:
    folders = [place.path("model")] * 2
    assert len(open_ensemble(folders, [1.0, 3.0], place.manifest).members) == 2
    with pytest.raises(ParamsError, match=r"ensemble\.weights: must be none, or 2 numbers above 0, got 1.0"):
        open_ensemble(folders, [1.0], place.manifest)


def test_a_release_that_does_not_exist_is_named(place: TrainedFolder) -> None:
    with pytest.raises(DataError, match="alexnet@0123456789abcdef"):
        pull("alexnet@0123456789abcdef")
