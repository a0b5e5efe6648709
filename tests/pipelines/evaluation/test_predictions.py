"""Predictions for every image of a split, by every protocol."""

from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.inference.ranking import topk
from alexnet.loading.loader import Loader
from alexnet.loading.sampler import BatchSampler
from pipelines.evaluation.predictions import predict
from pipelines.runtime.environment import Store
from pipelines.storage.dataset import open_dataset
from tests.support.trained_folder import TrainedFolder, make_trained_folder


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


def test_all_protocols_in_one_pass_are_those_of_the_released_model(place: TrainedFolder) -> None:
    samples = open_dataset(place.manifest, "val")
    predictions = predict(place.model, samples, ["center", "five", "flipped", "ten"], 50)
    (batch,) = Loader(samples, BatchSampler(5, seed=0, shuffle=False), workers=1).epoch(0)
    for views, predicted in predictions.topk.items():
        expected = topk(place.model.probabilities(batch.images, views))
        assert (predicted.labels == expected.labels).all()
        assert predicted.probabilities == pytest.approx(expected.probabilities, abs=1e-6)


@pytest.mark.gpu
def test_a_gpu_predicts_as_the_cpu_does(place: TrainedFolder) -> None:
    samples = open_dataset(place.manifest, "val")
    on_cpu, on_gpu = (
        predict(place.model.to(torch.device(device)), samples, ["center", "ten"], 20) for device in ("cpu", "cuda")
    )
    assert on_gpu.keys == on_cpu.keys
    assert (on_gpu.labels == on_cpu.labels).all()
    for views, top in on_cpu.topk.items():
        assert np.allclose(top.probabilities, on_gpu.topk[views].probabilities, atol=1e-3)  # convolutions there may be in TF32
