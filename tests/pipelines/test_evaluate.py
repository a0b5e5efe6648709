"""Evaluate, extract and predict on a small network, a real store and real files."""

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from alexnet.config import to_json
from alexnet.errors import DataError
from alexnet.inference.metrics import TopK, topk
from alexnet.loading.loader import Loader
from pipelines.cli import pictures
from pipelines.cli.predict import Predictor, best_views, read_picture
from pipelines.evaluate import evaluate
from pipelines.evaluation import plots
from pipelines.evaluation.inference import open_model
from pipelines.evaluation.predictions import Predictions, predict
from pipelines.runtime.environment import Store
from pipelines.storage.dataset import open_dataset
from tests.support.modelmaker import METRICS, Place, make_place


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> Place:
    return make_place(tmp_path, fresh_store, monkeypatch)


def run_evaluate(place: Place, metrics: str = "metrics.json", evaluation: str = "evaluation") -> None:
    evaluate(*map(place.path, ("model", "manifest.json", "history.csv", metrics, evaluation)))


def test_both_protocols_in_one_pass_are_those_of_the_released_model(place: Place) -> None:
    samples = open_dataset(place.manifest, "val")
    predictions = predict(place.model, samples, 5)
    (batch,) = Loader(samples, 5, seed=0, shuffle=False, workers=1).epoch(0)
    for views, predicted in predictions.topk.items():
        expected = topk(place.model.probabilities(batch.images, views).numpy())
        assert (predicted.labels == expected.labels).all()
        assert (predicted.probabilities == expected.probabilities).all()


@pytest.mark.gpu
def test_a_gpu_predicts_as_the_cpu_does(place: Place) -> None:
    samples = open_dataset(place.manifest, "val")
    on_cpu, on_gpu = (predict(place.model.to(torch.device(device)), samples, 2) for device in ("cpu", "cuda"))
    assert on_gpu.keys == on_cpu.keys
    assert (on_gpu.labels == on_cpu.labels).all()
    for views, top in on_cpu.topk.items():
        assert np.allclose(top.probabilities, on_gpu.topk[views].probabilities, atol=1e-3)  # convolutions there may be in TF32


def test_an_evaluation_says_the_same_in_all_its_files(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    run_evaluate(place)
    metrics = json.loads(place.path("metrics.json").read_text())
    predictions = pq.read_table(place.path("evaluation/predictions.parquet")).to_pylist()
    assert [row["key"] for row in predictions] == [f"k{i:05}" for i in range(7, 12)]
    wrong = [row["ten_labels"][0] != row["label"] for row in predictions]
    assert metrics["ten_crop"] == {"top1_error": sum(wrong) / 5, "top5_error": 0.0}
    assert metrics["images"] == 5
    assert metrics["classes"] == 3
    assert set(metrics["baselines"]) == {"majority", "ridge"}
    with place.path("evaluation/per_class.csv").open() as file:
        by_class = list(csv.DictReader(file))
    assert sum(float(row["ten_top1_error"]) * int(row["images"]) for row in by_class) == pytest.approx(sum(wrong))
    with place.path("evaluation/confusion.csv").open() as file:
        pairs = list(csv.DictReader(file))
    assert sum(row["actual"] != row["predicted"] for row in pairs) == sum(wrong)
    assert all(sum(row["ten_probabilities"]) == pytest.approx(1, abs=1e-5) for row in predictions)
    assert "evaluate: top-1 error" in capsys.readouterr().out


def test_an_evaluation_made_again_is_the_same_bytes_pictures_and_all(place: Place) -> None:
    run_evaluate(place)
    run_evaluate(place, "again.json", "again")
    assert place.path("metrics.json").read_bytes() == place.path("again.json").read_bytes()
    names = sorted(path.name for path in place.path("evaluation").iterdir())
    assert names == sorted(path.name for path in place.path("again").iterdir())
    assert {"confusion.png", "curves.png", "kernels.png", "predictions.png"} < set(names)
    for name in names:
        assert (place.path("evaluation") / name).read_bytes() == (place.path("again") / name).read_bytes(), name


def test_a_model_of_other_classes_is_refused(place: Place) -> None:
    other = replace(place.manifest, synsets=place.manifest.synsets[::-1])
    with pytest.raises(DataError, match=r"model: knows 3 classes in images of 256 px, .* train on these shards"):
        open_model(place.path("model"), other)


def test_a_damaged_model_is_named(place: Place) -> None:
    (place.path("model") / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"model: damaged: .*; pull or train the model again"):
        run_evaluate(place)
    assert not place.path("evaluation").exists()


def test_pictures_show_mistakes_after_what_is_right() -> None:
    keys = [f"k{i}" for i in range(40)]
    probabilities = np.ones((40, 1), np.float32)
    some_wrong = TopK(np.where(np.arange(40)[:, None] % 4 == 0, 1, 0), probabilities)
    none_wrong = TopK(np.zeros((40, 1), np.int64), probabilities)
    predictions = Predictions(keys, np.zeros(40, np.int64), {"center": some_wrong, "ten": none_wrong})
    assert [at % 4 == 0 for at in plots.choose(predictions, "center")] == [False] * 5 + [True] * 3
    assert len(plots.choose(predictions, "ten")) == 8
    all_wrong = Predictions(keys, np.full(40, 7), {"center": some_wrong})
    assert len(plots.choose(all_wrong, "center")) == 8


@pytest.mark.parametrize("classes", [2, 31])
def test_confusions_are_drawn_for_few_classes_and_for_many(tmp_path: Path, classes: int) -> None:
    matrix = np.random.default_rng(1).integers(0, 9, (classes, classes))
    plots.draw_confusion(tmp_path / "one.png", matrix, [f"a class, number {i}" for i in range(classes)], "ten crops")
    with Image.open(tmp_path / "one.png") as image:
        assert image.width > 300
        assert "Software" not in image.info


def test_one_towers_kernels_in_color_are_drawn(tmp_path: Path) -> None:
    weight = torch.randn((20, 3, 11, 11), generator=torch.Generator().manual_seed(1))
    plots.draw_kernels(tmp_path / "kernels.png", weight, 1, torch.rand(8, 8, 3) * 255)
    with Image.open(tmp_path / "kernels.png") as image:
        assert len(image.getcolors(1 << 20) or ()) > 100


# Predict.


def test_a_picture_is_prepared_as_the_training_images_were(place: Place) -> None:
    samples = open_dataset(place.manifest, "val")
    pixels = np.empty((256, 256, 3), np.uint8)
    samples.decode(0, 0, pixels)
    Image.fromarray(pixels).save("picture.png")
    guesses = Predictor(place.path("model"), "ten").guesses(Path("picture.png"))
    expected = predict(place.model, samples, 2).topk["ten"]
    assert [guess.label for guess in guesses] == expected.labels[0].tolist()
    assert [guess.probability for guess in guesses] == pytest.approx(expected.probabilities[0].tolist(), abs=1e-4)
    assert guesses[0].name == f"class {guesses[0].label}"


def test_the_better_protocol_is_taken_where_the_folder_says(tmp_path: Path) -> None:
    assert best_views(tmp_path) == "ten"
    (tmp_path / "metrics.json").write_bytes(to_json(METRICS))
    assert best_views(tmp_path) == "center"


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
        read_picture(path)


def test_a_missing_file_a_folder_and_a_huge_picture_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing.jpg: No such file or directory"):
        read_picture(tmp_path / "nothing.jpg")
    with pytest.raises(DataError, match="Is a directory"):
        read_picture(tmp_path)
    Image.new("1", (9500, 9500)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="9,500 x 9,500 pixels are too many; at most 89,000,000"):
        read_picture(tmp_path / "bomb.png")
