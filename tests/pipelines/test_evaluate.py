"""The evaluate stage on a small network, a real store and real files."""

import csv
import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from alexnet.errors import DataError
from pipelines.evaluate import evaluate
from pipelines.evaluation.intervals import share
from pipelines.evaluation.results import Results
from pipelines.runtime.environment import Store
from tests.support.trained_folder import TrainedFolder, make_trained_folder


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


def run_evaluate(place: TrainedFolder, metrics: str = "metrics.json", evaluation: str = "evaluation") -> None:
    evaluate(*map(place.path, ("model", "manifest.json", "history.csv", metrics, evaluation)))


def test_an_evaluation_says_the_same_in_all_its_files(place: TrainedFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run_evaluate(place)
    metrics = json.loads(place.path("metrics.json").read_text())
    predictions = pq.read_table(place.path("evaluation/predictions.parquet")).to_pylist()
    assert [row["key"] for row in predictions] == [f"k{i:05}" for i in range(7, 12)]
    assert [row["name"] for row in predictions] == [f"class {row['label']}" for row in predictions]
    assert predictions[0]["five_names"] == [f"class {label}" for label in predictions[0]["five_labels"]]
    wrong = [row["center_labels"][0] != row["label"] for row in predictions]
    assert [row["center_top1"] for row in predictions] == [not each for each in wrong]
    assert metrics["center_crop"]["top1_error"] == sum(wrong) / 5
    losses = [-math.log(row["five_probability"]) for row in predictions]
    assert metrics["many_crops"]["log_loss"] == pytest.approx(sum(losses) / 5)
    assert set(metrics["baselines"]) == {"majority", "ridge"}
    results = Results.read(place.path("evaluation/results.json"))
    assert [row.views for row in results.protocols] == ["center", "five", "flipped", "ten"]
    assert (results.split, results.images, results.classes) == ("val", 5, 3)
    assert results.center_crop.top1_error == share(sum(wrong) / 5, 5)
    with place.path("evaluation/per_class.csv").open() as file:
        by_class = list(csv.DictReader(file))
    assert sum(float(row["center_top1_error"]) * int(row["images"]) for row in by_class) == pytest.approx(sum(wrong))
    with place.path("evaluation/confusion.csv").open() as file:
        pairs = list(csv.DictReader(file))
    assert sum(row["actual"] != row["predicted"] for row in pairs) == sum(wrong)
    assert all(sum(row["ten_probabilities"]) == pytest.approx(1, abs=1e-5) for row in predictions)
    with place.path("evaluation/mistakes.csv").open() as file:
        assert [row["key"] for row in csv.DictReader(file)] == [
            row["key"]
            for row in sorted(predictions, key=lambda row: -row["center_probabilities"][0])
            if row["center_labels"][0] != row["label"]
        ]
    with place.path("evaluation/calibration.csv").open() as file:
        assert sum(int(row["images"]) for row in csv.DictReader(file)) == 4 * 5
    assert "evaluate: top-1 error" in capsys.readouterr().out


def test_an_evaluation_made_again_is_the_same_bytes_pictures_and_all(place: TrainedFolder) -> None:
    run_evaluate(place)
    run_evaluate(place, "again.json", "again")
    assert place.path("metrics.json").read_bytes() == place.path("again.json").read_bytes()
    names = sorted(path.name for path in place.path("evaluation").iterdir())
    assert names == sorted(path.name for path in place.path("again").iterdir())
    assert {"confusion.png", "curves.png", "kernels.png", "predictions.png"} < set(names)
    for name in names:
        assert (place.path("evaluation") / name).read_bytes() == (place.path("again") / name).read_bytes(), name


def test_a_damaged_model_is_named(place: TrainedFolder) -> None:
    (place.path("model") / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"model: damaged: .*; pull or train the model again"):
        run_evaluate(place)
    assert not place.path("evaluation").exists()
