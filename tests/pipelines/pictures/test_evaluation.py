"""All pictures of an evaluation, on a small network and real shards."""

from pathlib import Path

import pytest

from pipelines.evaluation.predictions import predict
from pipelines.pictures.evaluation import Evaluated, draw_all
from pipelines.runtime.environment import Store
from pipelines.storage.dataset import open_dataset
from tests.support.trained_folder import make_trained_folder


def test_every_picture_is_there_as_png_and_svg(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch)
    samples = open_dataset(place.manifest, "val")
    predictions = predict(place.model, samples, ["center"], 50)
    evaluated = Evaluated(place.model, samples, predictions, place.path("history.csv"), 0.3)
    draw_all(tmp_path / "pictures", evaluated)
    names = ("confusion", "curves", "kernels", "mistakes", "predictions", "reliability")
    assert sorted(path.name for path in (tmp_path / "pictures").iterdir()) == [
        f"{n}.{s}" for n in names for s in ("png", "svg")
    ]
