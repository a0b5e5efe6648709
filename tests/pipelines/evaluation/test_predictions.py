"""Predictions for every image of a split, by every protocol."""

import re
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from torch import Tensor

from alexnet.inference.metrics import TopK
from alexnet.inference.pretrained import Preprocessing, Pretrained, PretrainedConfig
from alexnet.inference.ranking import topk
from alexnet.loading.augment import CROPS_OF
from alexnet.loading.config import Views
from alexnet.loading.loader import Loader
from alexnet.loading.sampler import BatchSampler
from alexnet.model.network import AlexNet, initial_weights
from alexnet.shards.manifest import Synset
from pipelines.config import params
from pipelines.evaluation.predictions import predict
from pipelines.runtime.environment import Store
from pipelines.storage.dataset import open_dataset
from tests.support import sample_shards
from tests.support.stage_folder import PARAMS
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


def test_bf16_names_the_classes_of_float32_where_ties_are_hard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of a network whose classes come in pairs, of which now one is the likelier and now the other."""
    monkeypatch.setenv("ALEXNET_WORKERS", "1")
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, "avx512_bf16": False, "cpu_name": "of 2017"})
    samples = sample_shards.make([24, 16], 256).dataset(tmp_path)
    (batch,) = Loader(samples, BatchSampler(40, seed=0, shuffle=False), workers=1).epoch(0)
    model = _with_pairs_of_classes(batch.images)
    rounded, wrong, found = model.at("bf16").by_crop(batch.images, "ten"), 0, {"bf16": 0, "float32": 0}
    predictions, exact = (predict(model, samples, get_args(Views), 50, precision) for precision in ("bf16", "float32"))
    for views, top in exact.topk.items():
        by_bf16, decided = topk(rounded[CROPS_OF[views]].mean(0)), predictions.topk[views]
        assert _differ(decided, top) == 0
        wrong += _differ(by_bf16, top)
        assert (predictions.ranks[views].credit(5) == exact.ranks[views].credit(5)).all()
        for name, other in (("bf16", by_bf16), ("float32", top)):
            found[name] += int(np.isclose(decided.probabilities, other.probabilities, rtol=1e-5).all(1).sum())
    assert wrong > 4
    assert min(found.values()) > 20  # of 160, those that stay as they are and those that are computed again
    said = capsys.readouterr().out
    assert re.search(r"evaluate: five crops: \d+ of 40 images again in float32, .* up to 0\.0", said)
    assert "evaluate: this CPU has no bf16 and is slow with it" in said


def _differ(first: TopK, second: TopK) -> int:
    """The images of which the best classes, or the five best, differ."""
    five = np.sort(first.labels) != np.sort(second.labels)
    return int((five.any(1) | (first.labels[:, 0] != second.labels[:, 0])).sum())


@torch.no_grad()
def _with_pairs_of_classes(images: Tensor) -> Pretrained:
    config = replace(params.load(PARAMS).model, classes=12, kernels=(4, 8, 8, 8, 8), units=16)
    weights, drawn = initial_weights(config, 1), torch.Generator().manual_seed(2)
    rows = torch.randn(6, 32, generator=drawn).repeat_interleave(2, 0)
    weights |= {name: 8 * weights[name] for name in ("fc6.weight", "fc7.weight")}
    weights["fc8.weight"] = rows + 0.2 * torch.randn(12, 32, generator=drawn)
    network = AlexNet(config).to(memory_format=torch.channels_last)
    network.load_full(weights)
    synsets = tuple(Synset(label, f"n{label:08}", str(label)) for label in range(12))
    pretrained = PretrainedConfig(config, synsets, Preprocessing(256, "triangle"))
    model = Pretrained(network, pretrained, torch.full((256, 256, 3), 120.0))
    means = model.by_crop(images, "ten").log().mean((0, 1))
    network.fc8_bias[1::2] += means[::2] - means[1::2]
    return model


@pytest.mark.gpu
def test_a_gpu_predicts_as_the_cpu_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_WORKERS", "1")
    samples = sample_shards.make([24, 16], 256).dataset(tmp_path)
    (batch,) = Loader(samples, BatchSampler(40, seed=0, shuffle=False), workers=1).epoch(0)
    model = _with_pairs_of_classes(batch.images)
    on_cpu, on_gpu = (predict(model.to(torch.device(device)), samples, ["center", "ten"], 20) for device in ("cpu", "cuda"))
    assert on_gpu.keys == on_cpu.keys
    assert (on_gpu.labels == on_cpu.labels).all()
    for views, top in on_cpu.topk.items():
        assert np.allclose(top.probabilities, on_gpu.topk[views].probabilities, atol=1e-3)  # convolutions there may be in TF32
