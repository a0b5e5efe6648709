"""pipelines/data.py."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from alexnet.errors import DataError
from alexnet.loader import Loader
from alexnet.network import AlexNet
from alexnet.samples import Samples
from pipelines import data, params
from pipelines.bucket import Bucket
from pipelines.places import Store
from tests import shardmaker
from tests.shardmaker import CLASSES, Made


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test's own."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ALEXNET_CACHE", str(folder))
    return folder


def fill(bucket: Bucket, made: Made) -> None:
    for name, body in made.tars.items():
        bucket.put(f"shards/test/{name}", body)


def test_samples_come_from_the_bucket_and_then_from_the_disk(bucket: Bucket, cache: Path) -> None:
    made = shardmaker.make([5, 4])
    fill(bucket, made)
    first = data.open_samples(made.manifest(), "train", bucket)
    assert first.keys == [f"k{i:05}" for i in range(9)]
    for name in made.tars:
        bucket.delete(f"shards/test/{name}")
    again = data.open_samples(made.manifest(), "train", bucket)
    assert again.labels.tolist() == [i % CLASSES for i in range(9)]
    assert len(list(cache.glob("*.tar"))) == 2


def test_the_buckets_name_comes_from_the_environment(
    bucket: Bucket, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = shardmaker.make([3])
    fill(bucket, made)
    for name, text in {
        "ALEXNET_BUCKET": fresh_store.bucket,
        "AWS_ENDPOINT_URL": fresh_store.endpoint,
        "AWS_ACCESS_KEY_ID": fresh_store.access_key,
        "AWS_SECRET_ACCESS_KEY": fresh_store.secret_key,
        "AWS_DEFAULT_REGION": fresh_store.region,
    }.items():
        monkeypatch.setenv(name, str(text))
    assert len(data.open_samples(made.manifest(), "train").labels) == 3


def test_a_shard_that_is_not_in_the_bucket_is_named(bucket: Bucket) -> None:
    with pytest.raises(DataError, match=r"s3://.*/shards/test/train-000000\.tar: no such object"):
        _ = data.open_samples(shardmaker.make([3]).manifest(), "train", bucket).labels


def test_a_shard_of_another_size_in_the_bucket_is_refused_by_name(bucket: Bucket) -> None:
    made = shardmaker.make([3, 3])
    fill(bucket, Made(dict.fromkeys(made.tars, made.tars["train-000001.tar"]), made.shards))
    with pytest.raises(DataError, match=r"^train-000000\.tar: sha256 is .* also when fetched again"):
        _ = data.open_samples(made.manifest(), "train", bucket).labels


def test_the_cache_is_limited_by_the_environment(bucket: Bucket, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = shardmaker.make([4, 4, 4, 4])
    fill(bucket, made)
    limit = 2 * max(shard.bytes for shard in made.shards)
    monkeypatch.setenv("ALEXNET_CACHE_BYTES", str(limit))
    samples = data.open_samples(made.manifest(), "train", bucket)
    seen = [
        i
        for batch in Loader(samples, 3, seed=1, shuffle=True, workers=2, window_shards=1).epoch(0)
        for i in batch.samples.tolist()
    ]
    assert sorted(seen) == list(range(16))
    assert sum(path.stat().st_size for path in cache.glob("*.tar")) <= limit


@pytest.mark.parametrize("text", ["0", "-1", "10GB", "1.5"])
def test_a_limit_that_is_no_number_of_bytes_is_refused(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_CACHE_BYTES", text)
    with pytest.raises(DataError, match=f"ALEXNET_CACHE_BYTES: must be a whole number of bytes, at least 1, got '{text}'"):
        data.cache_bytes()


def test_the_cache_has_a_place_of_its_own_unless_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ALEXNET_CACHE")
    assert data.cache_folder() == Path(".local/cache/shards")
    assert data.cache_bytes() is None


def trained(samples: Samples, workers: int) -> dict[str, torch.Tensor]:
    """The weights of a tiny network after an epoch of plain steps."""
    config = params.load().model
    torch.manual_seed(0)
    network = AlexNet(replace(config, classes=CLASSES, kernels=(4, 8, 8, 8, 8), units=16))
    for weight in network.parameters():
        torch.nn.init.normal_(weight, std=0.05)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    for batch in Loader(samples, 4, seed=2, shuffle=True, workers=workers).epoch(0):
        crops = batch.images[:, 16:240, 16:240].permute(0, 3, 1, 2).float() - 128
        loss = functional.cross_entropy(network(crops), batch.labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.state_dict()


def test_training_from_the_bucket_and_from_a_warm_cache_gives_the_same_weights(bucket: Bucket) -> None:
    made = shardmaker.make([5, 3], side_px=256)
    fill(bucket, made)
    cold = trained(data.open_samples(made.manifest(), "train", bucket), workers=3)
    warm = trained(data.open_samples(made.manifest(), "train", bucket), workers=1)
    assert cold.keys() == warm.keys()
    assert all(torch.equal(cold[name], warm[name]) for name in cold)
