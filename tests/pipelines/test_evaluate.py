"""The evaluate stage on a small network, a real store and real files."""

import csv
import json
import math
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from alexnet.config import read_json
from alexnet.errors import DataError
from alexnet.inference.metrics import Metrics
from alexnet.inference.pretrained import load_pretrained, save_pretrained
from alexnet.model.network import initial_weights
from pipelines.cli.main import main as cli
from pipelines.config import params
from pipelines.evaluate import evaluate
from pipelines.evaluation.intervals import share
from pipelines.evaluation.predictions import predict
from pipelines.evaluation.results import THROUGHPUT, Results, Throughput
from pipelines.registry.release import Release
from pipelines.registry.store import Registry
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import registry_bucket
from pipelines.storage.dataset import open_dataset
from tests.support.trained_folder import TrainedFolder, make_trained_folder


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


def run_evaluate(place: TrainedFolder, metrics: str = "metrics.json", evaluation: str = "evaluation") -> None:
    evaluate(*map(place.path, ("model", "manifest.json", "pixels.npz", "history.csv", metrics, evaluation)))


def test_an_evaluation_says_the_same_in_all_its_files_and_made_again(
    place: TrainedFolder, capsys: pytest.CaptureFixture[str]
) -> None:
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
    assert metrics["split"] == "val"
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
    assert "evaluate: validation top-1 error" in capsys.readouterr().out
    speed = read_json(Throughput, THROUGHPUT, "")
    assert list(speed.protocols) == ["center", "five", "flipped", "ten"]
    assert min(speed.evaluation, *speed.protocols.values()) > 0
    run_evaluate(place, "again.json", "again")  # the same bytes, pictures and all
    assert place.path("metrics.json").read_bytes() == place.path("again.json").read_bytes()
    names = sorted(path.name for path in place.path("evaluation").iterdir())
    assert names == sorted(path.name for path in place.path("again").iterdir())
    pictures = ("architecture", "confusion", "curves", "kernels", "mistakes", "predictions", "reliability")
    assert {f"{name}.{suffix}" for name in pictures for suffix in ("png", "svg")} < set(names)
    assert {"explained-1.html", "explained-1.png"} < set(names)
    for name in names:
        assert (place.path("evaluation") / name).read_bytes() == (place.path("again") / name).read_bytes(), name


def test_a_test_split_is_reported_on_also_for_an_ensemble_with_a_release_and_curves_stay_on_validation(
    tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch, (7, 5, 4))
    other = place.root / "other"
    save_pretrained(other, place.model.config, initial_weights(place.model.config.model, seed=2), place.model.mean_image)
    release = Release.from_folder("alexnet", other)
    Registry(registry_bucket(), "alexnet").publish(release, other, None)
    text = Path("params.yaml").read_text()
    assert "models: []" in text
    Path("params.yaml").write_text(text.replace("models: []", f"models: [alexnet@{release.version}]"))
    run_evaluate(place)
    results = Results.read(place.path("evaluation/results.json"))
    assert (results.split, results.images) == ("test", 4)
    assert [row.views for row in results.ensemble] == ["center", "five", "flipped", "ten"]
    both = pq.read_table(place.path("evaluation/ensemble.parquet")).to_pylist()
    alone = pq.read_table(place.path("evaluation/predictions.parquet")).to_pylist()
    samples = open_dataset(place.manifest, "test")
    single = predict(load_pretrained(other), samples, ["five"], 60).ranks["five"].probability
    expected = [(row["five_probability"] + float(p)) / 2 for row, p in zip(alone, single, strict=True)]
    assert [row["five_probability"] for row in both] == pytest.approx(expected, abs=1e-6)
    metrics = Metrics.read(place.path("metrics.json"))
    assert metrics.split == "test"
    assert metrics.center_crop.top1_error == 1 - sum(row["center_top1"] for row in alone) / 4
    assert [row["key"] for row in alone] == [f"k{i:05}" for i in range(12, 16)]
    assert "of 4 test images are wrong" in place.path("evaluation/predictions.svg").read_text()
    assert metrics.baselines["majority"].top1_error == 0.5  # the labels are 0, 1, 2, 0, and training's are mostly 0
    with place.path("evaluation/curves.csv").open() as file:
        assert {row["majority"] for row in csv.DictReader(file)} == {"0.8"}  # validation's are 1, 2, 0, 1, 2
    assert "evaluate: test top-1 error by center crop" in capsys.readouterr().out
    assert cli(["ensemble", str(place.path("model")), f"alexnet@{release.version}", "--to", "averaged", "--json"]) == 0
    assert {row["split"] for row in json.loads(capsys.readouterr().out)} == {"test"}
    assert pq.read_table("averaged/predictions.parquet").to_pylist() == both


@pytest.mark.slow
def test_a_variant_is_trained_alike_once_and_stands_beside_ridge(
    place: TrainedFolder, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Path("params.yaml")
    text = file.read_text().replace("baselines: []", "baselines: [tanh]").replace("epochs: 10", "epochs: 2")
    file.write_text(text)
    run_evaluate(place)
    results, metrics = Results.read(place.path("evaluation/results.json")), Metrics.read(place.path("metrics.json"))
    assert "evaluate: tanh: train: epoch 2/2" in capsys.readouterr().out
    (folder,) = Path(".local/baselines").glob("tanh-*")
    model = load_pretrained(folder / "model")
    assert model.config.model == params.load(variant="tanh").model
    samples = open_dataset(place.manifest, "val")
    wrong = 1 - predict(model, samples, ["center"], 60).ranks["center"].credit(1)
    assert results.variants == {"tanh": share(wrong.mean(), 5)}
    assert metrics.baselines["tanh"].top1_error == wrong.mean()
    run_evaluate(place, "again.json", "again")
    assert "train:" not in capsys.readouterr().out
    assert place.path("again.json").read_bytes() == place.path("metrics.json").read_bytes()
    file.write_text(text.replace("momentum: 0.9", "momentum: 0.8"))
    run_evaluate(place)
    assert len(list(Path(".local/baselines").glob("tanh-*"))) == 2


def test_a_damaged_model_is_named(place: TrainedFolder) -> None:
    (place.path("model") / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(DataError, match=r"model: damaged: .*; pull or train the model again"):
        run_evaluate(place)
    assert not place.path("evaluation").exists()
