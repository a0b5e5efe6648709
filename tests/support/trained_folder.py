"""A folder as the stages before evaluate leave it: params.yaml, shards in a bucket, a small network of random weights."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML

from alexnet.config import to_json
from alexnet.images.statistics import PixelStatistics
from alexnet.inference.metrics import Baseline, Metrics, Scores
from alexnet.inference.pretrained import Preprocessing, Pretrained, PretrainedConfig, load_pretrained, save_pretrained
from alexnet.model.network import initial_weights
from alexnet.shards.manifest import Manifest, Shard, Split
from pipelines.config import params
from pipelines.evaluation.results import Estimate, ProtocolResult, Results
from pipelines.runtime.environment import Store, TrainedOn
from pipelines.storage.bucket import Bucket
from pipelines.validation import index
from pipelines.validation.report import FaultCounts, PerClass, Rule, SplitCounts, ValidationReport
from tests.support import sample_shards
from tests.support.stage_folder import PARAMS, environment

SIDE_PX = 256
HISTORY = """epoch,step,lr,train_loss,train_top1_error,val_loss,val_top1_error,val_top5_error,images_per_second
0,2,0.01,1.2,0.7,1.1,0.6,0.1,10.0
1,4,0.001,0.9,0.5,0.8,0.4,0.0,10.0
"""
METRICS = Metrics(
    "val", Scores(0.1, 0.0, 0.5, 0.05), Scores(0.2, 0.0, 0.6, 0.06), {"majority": Baseline(0.7), "ridge": Baseline(0.3)}
)
RESULTS = Results(
    split="val",
    images=5,
    classes=3,
    protocols=(
        ProtocolResult("center", Estimate(0.1, 0.05, 0.25), Estimate(0.0, 0.0, 0.01), Estimate(0.5, 0.4, 0.6), 0.05),
        ProtocolResult("five", Estimate(0.2, 0.15, 0.35), Estimate(0.0, 0.0, 0.01), Estimate(0.6, 0.5, 0.7), 0.06),
    ),
    ensemble=(),
    majority=Estimate(0.7, 0.6, 0.8),
    ridge=Estimate(0.3, 0.2, 0.4),
    variants={},
)
VALIDATION = ValidationReport(
    source="test",
    success=True,
    images=13,
    used=12,
    splits={"train": SplitCounts(7, 3, PerClass(2, 3)), "val": SplitCounts(5, 3, PerClass(1, 2))},
    faults={"tiny": FaultCounts("drop", "a side too short", 1, ("k99999",), "")},
    rules=(
        Rule("images", "No key stands twice", "critical", True, 0, (), None, ""),
        Rule("faults", "No image is tiny", "warning", False, 1, ("k99999",), None, ""),
    ),
    index_sha256="cd" * 32,
    data_docs="data-docs/ab/index.html",
)
PIXELS = PixelStatistics(
    mean_image=np.full((SIDE_PX, SIDE_PX, 3), 120, np.float32),
    channel_mean=np.full(3, 120.0),
    channel_std=np.full(3, 60.0),
    eigenvectors=np.eye(3),
    eigen_std=np.array([90.0, 9.0, 9.0]),
    images=7,
)


@dataclass(frozen=True)
class TrainedFolder:
    """The current folder of a test."""

    root: Path
    manifest: Manifest
    model: Pretrained

    def path(self, name: str) -> Path:
        """Of an artifact."""
        return self.root / "artifacts" / name


def make_trained_folder(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch, counts: Sequence[int] = (7, 5)
) -> TrainedFolder:
    """Training, validation and test images of three classes, as many as in counts. Changes into `root` for the test's rest."""
    monkeypatch.chdir(root)
    for name, value in (environment(store, root) | {"ALEXNET_WORKERS": "1", "ALEXNET_DEVICES": "cpu"}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ALEXNET_CACHE", str(root / "cache"))
    monkeypatch.setenv("ALEXNET_REGISTRY_CACHE", str(root / "releases"))
    _write_params(root / "params.yaml")
    (root / "artifacts").mkdir()
    shards = sample_shards.make(counts, SIDE_PX)
    bucket = Bucket(store.bucket, store)
    for name, body in shards.tars.items():
        bucket.put(f"shards/test/{name}", body)
    splits: dict[Split, tuple[Shard, ...]] = {
        split: (shard,) for split, shard in zip(get_args(Split), shards.shards, strict=False)
    }
    manifest = dataclasses.replace(shards.manifest(), splits=splits)
    config = PretrainedConfig(params.load().model, manifest.synsets, Preprocessing(SIDE_PX, "triangle"))
    folder = root / "artifacts" / "model"
    save_pretrained(folder, config, initial_weights(config.model, seed=1), torch.full((SIDE_PX, SIDE_PX, 3), 120.0))
    place = TrainedFolder(root, manifest, load_pretrained(folder))
    manifest.write(place.path("manifest.json"))
    place.path("history.csv").write_text(HISTORY)
    PIXELS.write(place.path("pixels.npz"))
    validated = index.write(index.SCHEMA.empty_table(), place.path("index.parquet"))
    dataclasses.replace(VALIDATION, index_sha256=validated).write(place.path("validation.json"))
    place.path("training.json").write_bytes(to_json(TrainedOn("a CPU", 1, "2.15")))
    place.path("source.json").write_text("{}\n")
    return place


def _write_params(path: Path) -> None:
    """The shipped parameters with few kernels and three classes."""
    yaml = YAML(typ="safe", pure=True)
    tree = yaml.load(PARAMS)
    tree["model"] |= {"classes": sample_shards.CLASSES, "kernels": [4, 8, 8, 8, 8], "units": 16}
    tree["evaluate"]["batch_size"] = 2
    tree["probe"]["batch_size"] = 2
    tree["extract"]["batch_size"] = 2
    tree["publish"] |= {"exports": [], "must_beat_baselines": False}  # exports take seconds each time, and weights are random
    yaml.dump(tree, path)
