"""pipelines/storage/dataset.py."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from alexnet.errors import DataError
from alexnet.images.statistics import PixelStatistics
from alexnet.loading.loader import Loader
from alexnet.loading.sampler import BatchSampler
from alexnet.model.network import AlexNet
from alexnet.shards.manifest import Manifest
from alexnet.training.checkpoint import Checkpoints
from alexnet.training.loop import Callbacks, fit
from alexnet.training.trainer import Trainer, TrainingJob
from pipelines.config import params
from pipelines.runtime.environment import Store
from pipelines.storage import dataset as data
from pipelines.storage.bucket import Bucket
from tests.support import sample_shards
from tests.support.sample_shards import CLASSES, SampleShards


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ALEXNET_CACHE", str(folder))
    return folder


def fill(bucket: Bucket, made: SampleShards) -> None:
    for name, body in made.tars.items():
        bucket.put(f"shards/test/{name}", body)


def test_samples_come_from_the_bucket_and_then_from_the_disk(bucket: Bucket, cache: Path) -> None:
    made = sample_shards.make([5, 4])
    fill(bucket, made)
    first = data.open_dataset(made.manifest(), "train", bucket)
    assert sample_shards.keys(first) == [f"k{i:05}" for i in range(9)]
    for name in made.tars:
        bucket.delete(f"shards/test/{name}")
    again = data.open_dataset(made.manifest(), "train", bucket)
    assert sample_shards.labels(again) == [i % CLASSES for i in range(9)]
    assert len(list(cache.glob("*.tar"))) == 2


def test_the_buckets_name_comes_from_the_environment(
    bucket: Bucket, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = sample_shards.make([3])
    fill(bucket, made)
    for name, text in {
        "ALEXNET_BUCKET": fresh_store.bucket,
        "AWS_ENDPOINT_URL": fresh_store.endpoint,
        "AWS_ACCESS_KEY_ID": fresh_store.access_key,
        "AWS_SECRET_ACCESS_KEY": fresh_store.secret_key,
        "AWS_DEFAULT_REGION": fresh_store.region,
    }.items():
        monkeypatch.setenv(name, str(text))
    assert len(sample_shards.labels(data.open_dataset(made.manifest(), "train"))) == 3


def test_a_shard_that_is_not_in_the_bucket_is_named(bucket: Bucket) -> None:
    with pytest.raises(DataError, match=r"s3://.*/shards/test/train-000000\.tar: no such object"):
        _ = sample_shards.labels(data.open_dataset(sample_shards.make([3]).manifest(), "train", bucket))


def test_a_shard_of_another_size_in_the_bucket_is_refused_by_name(bucket: Bucket) -> None:
    made = sample_shards.make([3, 3])
    fill(bucket, SampleShards(dict.fromkeys(made.tars, made.tars["train-000001.tar"]), made.shards))
    with pytest.raises(DataError, match=r"^train-000000\.tar: sha256 is .* also when fetched again"):
        _ = sample_shards.labels(data.open_dataset(made.manifest(), "train", bucket))


def test_the_cache_is_limited_by_the_environment(bucket: Bucket, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sample_shards.make([4, 4, 4, 4])
    fill(bucket, made)
    limit = 2 * max(shard.bytes for shard in made.shards)
    monkeypatch.setenv("ALEXNET_CACHE_BYTES", str(limit))
    samples = data.open_dataset(made.manifest(), "train", bucket)
    seen = [
        i
        for batch in Loader(samples, BatchSampler(3, seed=1, shuffle=True, window_shards=1), workers=2).epoch(0)
        for i in batch.samples.tolist()
    ]
    assert sorted(seen) == list(range(16))
    assert sum(path.stat().st_size for path in cache.glob("*.tar")) <= limit


def test_a_process_that_may_not_open_enough_files_says_so(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = sample_shards.make([2, 2, 2])
    fill(bucket, made)
    assert len(data.open_dataset(made.manifest(), "train", bucket)) == 6
    assert capsys.readouterr().out == ""
    monkeypatch.setattr("resource.getrlimit", lambda what: (4, 4))
    data.open_dataset(made.manifest(), "train", bucket)
    said = "data: this process may open 4 files: 2 of the train split's 3 shards stay open, the others are opened anew "
    assert said in capsys.readouterr().out


@pytest.mark.parametrize("text", ["0", "-1", "10GB", "1.5"])
def test_a_limit_that_is_no_number_of_bytes_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_CACHE_BYTES", text)
    with pytest.raises(DataError, match=f"ALEXNET_CACHE_BYTES: must be a whole number of at least 1, got '{text}'"):
        data.cache_bytes()


def test_the_cache_is_in_the_local_folder_unless_a_variable_names_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALEXNET_CACHE")
    assert data.cache_folder() == Path(".local/cache/shards")
    assert data.cache_bytes() is None


def trained(job: TrainingJob, manifest: Manifest, bucket: Bucket, checkpoints: Path, workers: int) -> dict[str, torch.Tensor]:
    """Weights and velocities after the job, on samples from the bucket or the cache."""
    pixels = PixelStatistics(np.full((256, 256, 3), 120.0, np.float32), np.zeros(3), np.ones(3), np.eye(3), np.ones(3), 1)
    trainer = Trainer(job, AlexNet(job.model), pixels, torch.device("cpu"))
    train, val = (
        Loader(data.open_dataset(manifest, split, bucket), BatchSampler(4, seed=2, shuffle=split == "train"), workers=workers)
        for split in ("train", "val")
    )
    fit(trainer, train, val, Checkpoints(checkpoints), Callbacks())
    return trainer.tensors()


def test_training_from_the_bucket_and_from_a_warm_cache_gives_the_same_weights(bucket: Bucket, tmp_path: Path) -> None:
    """The objects are gone when the second run begins: it has the cache alone."""
    made = sample_shards.make([5, 3, 4], side_px=256)
    fill(bucket, made)
    manifest = replace(made.manifest(), splits={"train": tuple(made.shards[:2]), "val": tuple(made.shards[2:])})
    shipped = params.load()
    model = replace(shipped.model, classes=CLASSES, kernels=(4, 8, 8, 8, 8), units=16)
    job = TrainingJob(1, model, replace(shipped.train, batch_size=4, epochs=1), "data")
    cold = trained(job, manifest, bucket, tmp_path / "cold", workers=3)
    for name in made.tars:
        bucket.delete(f"shards/test/{name}")
    warm = trained(job, manifest, bucket, tmp_path / "warm", workers=1)
    assert cold.keys() == warm.keys()
    assert all(torch.equal(cold[name], warm[name]) for name in cold)
    assert any(tensor.any() for name, tensor in cold.items() if name.startswith("velocity/"))
