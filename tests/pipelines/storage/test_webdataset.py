"""Stock webdataset reads the shards of a real store by their addresses."""

import json
from pathlib import Path

import pytest
import webdataset as wds
import wids

from alexnet.shards.tar import index_tar
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from pipelines.storage.webdataset import indexes, open_s3, urls
from tests.support.stage_folder import environment
from tests.support.trained_folder import make_trained_folder


def test_stock_webdataset_reads_every_sample(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch)
    for name, value in environment(fresh_store, tmp_path).items():
        monkeypatch.setenv(name, value)
    bucket = Bucket(fresh_store.bucket, fresh_store)
    for split, shards in place.manifest.splits.items():
        wanted = [index_tar(bucket.get(place.manifest.prefix + each.name), each.name) for each in shards]
        labels = {key: label for each in wanted for key, label in zip(each.keys, each.labels.tolist(), strict=True)}
        addresses = urls(split, place.path("manifest.json"))
        samples = list(wds.WebDataset(addresses, shardshuffle=False).decode("pil"))
        assert {sample["__key__"]: sample["cls"] for sample in samples} == labels
        assert {sample["jpg"].size for sample in samples} == {(place.manifest.side_px,) * 2}
        index = json.loads(indexes(place.manifest)[f"{split}.json"])
        assert [each["nsamples"] for each in index["shardlist"]] == [len(each) for each in wanted]
        assert [address.rpartition("/")[2] for address in addresses] == [each["url"] for each in index["shardlist"]]


def test_wids_reads_any_sample_of_copied_shards_by_their_index(
    tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch)
    bucket = Bucket(fresh_store.bucket, fresh_store)
    for split, shards in place.manifest.splits.items():
        bodies = {each.name: bucket.get(place.manifest.prefix + each.name) for each in shards}
        for name, body in bodies.items():
            Path(name).write_bytes(body)
        Path(f"{split}.json").write_bytes(indexes(place.manifest)[f"{split}.json"])
        wanted = [
            (key, label, body[offset : offset + size])
            for name, body in bodies.items()
            for found in [index_tar(body, name)]
            for key, label, offset, size in zip(found.keys, found.labels.tolist(), found.offsets, found.sizes, strict=True)
        ]
        samples = wids.ShardListDataset(f"{split}.json", cache_dir="copies", transformations=[])
        assert len(samples) == len(wanted)
        for number, (key, label, jpeg) in reversed([*enumerate(wanted)]):  # in no order of the tars
            sample = samples[number]
            assert (sample["__key__"], int(sample[".cls"].read()), sample[".jpg"].read()) == (key, label, jpeg)


def test_a_shard_is_only_read() -> None:
    with pytest.raises(ValueError, match="mode must be 'rb', got 'wb'"):
        open_s3("s3://bucket/key", "wb")
