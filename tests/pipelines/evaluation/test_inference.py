"""The network on its device, and a split's batches with their keys."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.errors import DataError
from pipelines.evaluation.inference import load_batches, load_chosen, open_model, sample_keys
from pipelines.runtime.environment import Store
from pipelines.storage.dataset import open_dataset
from tests.support.trained_folder import TrainedFolder, make_trained_folder


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


def test_all_images_come_once_in_the_manifests_order_with_their_keys(place: TrainedFolder) -> None:
    samples = open_dataset(place.manifest, "val")
    batches = list(load_batches(samples, 2, "test"))
    assert [len(batch.labels) for batch in batches] == [2, 2, 1]
    assert [key for batch in batches for key in sample_keys(samples, batch)] == [f"k{i:05}" for i in range(7, 12)]
    assert torch.cat([batch.labels for batch in batches]).tolist() == [i % 3 for i in range(7, 12)]


def test_chosen_images_come_in_their_order(place: TrainedFolder) -> None:
    samples = open_dataset(place.manifest, "val")
    chosen = np.array([4, 0, 3])
    batches = list(load_chosen(samples, chosen, 2, "test", torch.device("cpu")))
    assert torch.cat([batch.samples for batch in batches]).tolist() == chosen.tolist()
    (everything,) = load_batches(samples, 5, "test")
    assert torch.equal(torch.cat([batch.images for batch in batches]), everything.images[chosen])


def test_shards_that_were_read_do_not_stay_mapped(place: TrainedFolder) -> None:
    (shard,) = place.manifest.splits["val"]
    samples = open_dataset(replace(place.manifest, splits={"train": (), "val": (shard,) * 5}), "val")
    batches = list(load_batches(samples, 2, "test"))
    assert [key for batch in batches for key in sample_keys(samples, batch)] == [f"k{i:05}" for i in range(7, 12)] * 5
    mapped = [line for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(f"{shard.sha256}.tar")]
    assert 1 <= sum(str(place.root) in line for line in mapped) <= 2  # other tests have the same shard


def test_a_model_is_opened_where_the_stage_computes(place: TrainedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    model = open_model(place.path("model"), place.manifest)
    assert model.device == torch.device("cpu")
    assert model.config == place.model.config


@pytest.mark.parametrize("change", ["synsets", "side_px"])
def test_a_model_of_other_classes_or_of_images_of_another_size_is_refused(place: TrainedFolder, change: str) -> None:
    other = {"synsets": place.manifest.synsets[::-1], "side_px": 240}
    with pytest.raises(DataError, match=r"model: knows 3 classes in images of 256 px, .* train on these shards"):
        open_model(place.path("model"), replace(place.manifest, **{change: other[change]}))  # type: ignore[arg-type]
