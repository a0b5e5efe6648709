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

from alexnet.errors import DataError
from alexnet.inference.metrics import Best
from pipelines.cli.predict import Predictor, better_views, read_picture
from pipelines.evaluate import center_and_ten, evaluate, judge
from pipelines.evaluation import plots
from pipelines.evaluation.inference import open_model
from pipelines.evaluation.outcome import Outcome
from pipelines.runtime.environment import Store
from pipelines.storage.dataset import open_samples
from tests.support import pictures
from tests.support.modelmaker import Place, make_place


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> Place:
    return make_place(tmp_path, fresh_store, monkeypatch)


def run_evaluate(place: Place, metrics: str = "metrics.json", evaluation: str = "evaluation") -> None:
    evaluate(*map(place.path, ("model", "manifest.json", "history.csv", metrics, evaluation)))


def test_both_protocols_in_one_pass_are_those_of_the_released_model(place: Place) -> None:
    images = torch.randint(0, 256, (3, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    center, ten = center_and_ten(place.model, images)
    assert torch.equal(center, place.model.probabilities(images, "center"))
    assert torch.equal(ten, place.model.probabilities(images, "ten"))


@pytest.mark.gpu
def test_a_gpu_judges_as_the_cpu_does(place: Place) -> None:
    samples = open_samples(place.manifest, "val")
    on_cpu, on_gpu = (judge(place.model.to(torch.device(device)), samples, 2) for device in ("cpu", "cuda"))
    assert on_gpu.keys == on_cpu.keys
    assert (on_gpu.labels == on_cpu.labels).all()
    for here, there in ((on_cpu.center_crop, on_gpu.center_crop), (on_cpu.ten_crop, on_gpu.ten_crop)):
        assert np.allclose(here.probabilities, there.probabilities, atol=1e-3)  # convolutions there may be in TF32


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
    best = Best(np.where(np.arange(40)[:, None] % 4 == 0, 1, 0), np.ones((40, 1), np.float32))
    outcome = Outcome(keys, np.zeros(40, np.int64), best, best)
    chosen = plots.choose(outcome)
    assert [at % 4 == 0 for at in chosen] == [False] * 5 + [True] * 3
    none_wrong = Outcome(keys, np.zeros(40, np.int64), best, Best(np.zeros((40, 1), np.int64), best.probabilities))
    assert len(plots.choose(none_wrong)) == 8
    all_wrong = Outcome(keys, np.full(40, 7), best, best)
    assert len(plots.choose(all_wrong)) == 8


def test_pictures_go_by_the_protocol_that_errs_less() -> None:
    right, wrong = (Best(np.full((4, 1), label), np.ones((4, 1), np.float32)) for label in (0, 1))
    labels = np.zeros(4, np.int64)
    by_center = Outcome(list("abcd"), labels, right, wrong)
    assert (by_center.views, by_center.better) == ("center", right)
    alike = Outcome(list("abcd"), labels, wrong, wrong)
    assert alike.views == "ten"


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
    samples = open_samples(place.manifest, "val")
    pixels = np.empty((256, 256, 3), np.uint8)
    samples.decode(0, 0, pixels)
    Image.fromarray(pixels).save("picture.png")
    guesses = Predictor(place.path("model"), "ten").guesses(Path("picture.png"))
    outcome = judge(place.model, samples, 2)
    assert [guess.label for guess in guesses] == outcome.ten_crop.labels[0].tolist()
    assert [guess.probability for guess in guesses] == pytest.approx(outcome.ten_crop.probabilities[0].tolist(), abs=1e-4)
    assert guesses[0].name == f"class {guesses[0].label}"


def test_the_better_protocol_is_taken_where_the_folder_says(tmp_path: Path) -> None:
    assert better_views(tmp_path) == "ten"
    errors = {"center_crop": {"top1_error": 0.1}, "ten_crop": {"top1_error": 0.2}}
    (tmp_path / "metrics.json").write_text(json.dumps(errors))
    assert better_views(tmp_path) == "center"


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
