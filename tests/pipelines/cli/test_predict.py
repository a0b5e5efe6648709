"""Predictions for image files, by a model folder."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from alexnet.config import to_json
from alexnet.errors import DataError
from alexnet.images.resize import prepare
from alexnet.inference.pretrained import Preprocessing, load_pretrained
from alexnet.inference.ranking import topk
from pipelines.cli import pictures
from pipelines.cli.predict import predict as predict_file
from pipelines.cli.predict import read_image
from pipelines.evaluation.predictions import predict
from pipelines.runtime.environment import Store
from pipelines.storage.dataset import open_dataset
from tests.support.trained_folder import TrainedFolder, make_trained_folder


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


def test_a_picture_is_prepared_as_the_training_images_were(place: TrainedFolder) -> None:
    samples = open_dataset(place.manifest, "val")
    pixels = np.empty((256, 256, 3), np.uint8)
    samples.decode(0, 0, pixels)
    Image.fromarray(pixels).save("picture.png")
    guesses = predict_file(place.model, Path("picture.png"), "ten")
    expected = predict(place.model, samples, ["ten"], 20).topk["ten"]
    assert [guess.label for guess in guesses] == expected.labels[0].tolist()
    assert [guess.probability for guess in guesses] == pytest.approx(expected.probabilities[0].tolist(), abs=1e-4)
    assert guesses[0].name == f"class {guesses[0].label}"


def test_how_a_picture_is_resized_is_in_the_models_own_folder(place: TrainedFolder) -> None:
    """Not in a params.yaml that lies there or not."""
    folder = place.path("model")
    noise = np.random.default_rng(1).integers(0, 256, (700, 900, 3), np.uint8)
    Image.fromarray(noise).save("picture.png")
    (folder / "params.yaml").write_text("shard: {filter: area}\n")
    triangle = predict_file(load_pretrained(folder), Path("picture.png"), "center")
    config = place.model.config
    (folder / "config.json").write_bytes(to_json(replace(config, preprocessing=Preprocessing(256, "area"))))
    (folder / "params.yaml").unlink()
    area = predict_file(load_pretrained(folder), Path("picture.png"), "center")
    for filter_, guesses in (("triangle", triangle), ("area", area)):
        pixels = torch.from_numpy(prepare(Path("picture.png").read_bytes(), 256, filter_).copy())[None]  # type: ignore[arg-type]
        expected = topk(place.model.probabilities(pixels, "center")).probabilities[0].tolist()
        assert [guess.probability for guess in guesses] == pytest.approx(expected, abs=1e-6)
    assert triangle != area


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: b"", "file: an empty file; allowed: JPEG, PNG"),
        (lambda: b"plain text", "file: not an image; allowed: JPEG, PNG"),
        (lambda: pictures.jpeg(1)[:-200], "file: damaged: .*truncated"),
    ],
)
def test_a_file_without_a_picture_is_named(tmp_path: Path, make: Callable[[], bytes], text: str) -> None:
    path = tmp_path / "file"
    path.write_bytes(make())
    with pytest.raises(DataError, match=text):
        read_image(path)


def test_a_missing_file_a_folder_and_a_huge_picture_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing.jpg: No such file or directory"):
        read_image(tmp_path / "nothing.jpg")
    with pytest.raises(DataError, match="Is a directory"):
        read_image(tmp_path)
    Image.new("1", (9500, 9500)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="9,500 x 9,500 pixels are too many; at most 89,000,000"):
        read_image(tmp_path / "bomb.png")
