"""The probe stage on a few images: its classifiers and neighbors against scikit-learn on the same outputs."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.stats import binomtest
from sklearn.linear_model import RidgeClassifier
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from alexnet.shards.manifest import Split
from pipelines.config import params
from pipelines.features.layers import layer_outputs
from pipelines.probe import probe
from pipelines.runtime.environment import Store
from pipelines.storage.dataset import open_dataset
from tests.support.trained_folder import TrainedFolder, make_trained_folder


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


def outputs(place: TrainedFolder, split: Split) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Every layer's output for a split, and the labels."""
    samples = open_dataset(place.manifest, split)
    pixels = np.empty((len(samples), 256, 256, 3), np.uint8)
    labels = np.array([samples.decode(0, row, pixels[row]) for row in range(len(samples))])
    found = layer_outputs(place.model, torch.from_numpy(pixels), params.load().probe.numbers)
    return {name: values.numpy() for name, values in found.items()}, labels


def test_errors_and_neighbors_are_scikit_learns(place: TrainedFolder) -> None:
    probe(place.path("model"), place.path("manifest.json"), place.path("probe"))
    (x, labels), (val_x, val_labels) = outputs(place, "train"), outputs(place, "val")
    errors = pd.read_csv(place.path("probe") / "probe.csv", index_col="layer")
    assert list(errors.index) == [*x, "fc7, 6 nearest"]
    for name in x:
        twin = make_pipeline(StandardScaler(), RidgeClassifier(alpha=params.load().probe.ridge_alpha)).fit(x[name], labels)
        wrong = int((twin.predict(val_x[name]) != val_labels).sum())
        row = errors.loc[name]
        interval = binomtest(wrong, 5).proportion_ci(0.95, "wilson")
        assert (row["top1_error"], row["low"], row["high"], row["images"]) == (wrong / 5, interval.low, interval.high, 5)
    table = pd.read_parquet(place.path("probe") / "neighbors.parquet")
    twin = NearestNeighbors(n_neighbors=6, algorithm="brute", metric="euclidean").fit(x["fc7"].astype(np.float64))
    distances, samples = twin.kneighbors(val_x["fc7"].astype(np.float64))
    assert np.array_equal(np.stack(table["neighbor_samples"]), samples)
    assert np.allclose(np.stack(table["distances"]), distances, rtol=1e-4)
    assert np.array_equal(np.stack(table["neighbor_labels"]), labels[samples])
    assert table["key"].tolist() == [f"k{i:05}" for i in range(7, 12)]
    assert table["neighbor_keys"][0].tolist() == [f"k{i:05}" for i in samples[0]]
    assert table["name"].tolist() == [f"class {label}" for label in val_labels]


def test_fewer_queries_and_neighbors_than_asked_for_are_no_mistake(
    place: TrainedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also: the bytes are the same whatever the size of a block."""
    probe(place.path("model"), place.path("manifest.json"), place.path("probe"))
    before = (place.path("probe") / "neighbors.parquet").read_bytes()
    monkeypatch.setattr("pipelines.probe._BLOCK", 1)
    probe(place.path("model"), place.path("manifest.json"), place.path("probe"))
    assert (place.path("probe") / "neighbors.parquet").read_bytes() == before
    text = Path("params.yaml").read_text()
    Path("params.yaml").write_text(text.replace("queries: 2000", "queries: 3").replace("neighbors: 6", "neighbors: 60"))
    probe(place.path("model"), place.path("manifest.json"), place.path("probe"))
    table = pd.read_parquet(place.path("probe") / "neighbors.parquet")
    assert len(table) == 3
    assert all(sorted(row) == list(range(7)) for row in table["neighbor_samples"])
    errors = pd.read_csv(place.path("probe") / "probe.csv", index_col="layer")
    assert errors["images"].to_dict()["fc7, 7 nearest"] == 3


def test_where_there_is_a_test_split_it_is_what_is_probed(
    tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch, (7, 5, 4))
    probe(place.path("model"), place.path("manifest.json"), place.path("probe"))
    assert set(pd.read_csv(place.path("probe/probe.csv"))["images"]) == {4}
    assert pd.read_parquet(place.path("probe/neighbors.parquet"))["key"].tolist() == [f"k{i:05}" for i in range(12, 16)]
    assert "Test images, left, and their nearest training images" in place.path("probe/neighbors.svg").read_text()
    assert "top-1 error on test images" in place.path("probe/depth.svg").read_text()
