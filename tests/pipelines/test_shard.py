import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError, ParamsError
from alexnet.pixels import PixelStatistics, PixelSums
from alexnet.prepare import decode, prepare
from alexnet.shards import Manifest
from alexnet.tarfiles import Sample, tar_of
from alexnet.tarindex import index_tar
from pipelines import index, params, shard
from pipelines.bucket import Bucket
from pipelines.places import Store
from pipelines.sources import Source, open_source
from tests import pictures
from tests.workplace import INDEX, MANIFEST, PIXELS, Workplace, environment, make_workplace


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return pictures.folder(tmp_path / "images", classes=3, images=8)


@pytest.fixture
def workplace(tmp_path: Path, fresh_store: Store, images: Path, monkeypatch: pytest.MonkeyPatch) -> Workplace:
    (tmp_path / "work").mkdir()
    workplace = make_workplace(tmp_path / "work", fresh_store, images, monkeypatch)
    write_index()
    return workplace


def write_index() -> None:
    given = params.load()
    source = open_source(given.source)
    index.write(index.complete(index.scan(source, given.validate), given.validate, 0.25), INDEX)


def run() -> Manifest:
    shard.main(INDEX, MANIFEST, PIXELS)
    return Manifest.read(MANIFEST)


def objects(bucket: Bucket) -> dict[str, bytes]:
    return {key: bucket.get(key) for key in bucket.sizes("shards/")}


def test_every_image_is_in_one_shard_with_its_label(workplace: Workplace, bucket: Bucket, images: Path) -> None:
    manifest = run()
    rows = {row["key"]: row for row in index.read(INDEX).to_pylist()}
    found: dict[str, str] = {}
    for split, shards in manifest.splits.items():
        for each in shards:
            tar = bucket.get(manifest.prefix + each.name)
            members = index_tar(tar, each.name)
            assert (each.bytes, each.samples) == (len(tar), len(members))
            assert each.labels == Counter(members.labels.tolist())
            for key, label, start, size in zip(members.keys, members.labels, members.offsets, members.sizes, strict=True):
                assert (rows[key]["split"], rows[key]["label"]) == (split, label)
                pixels = decode(bytes(tar[start : start + size]))
                wanted = prepare((images / rows[key]["path"]).read_bytes(), 32, "triangle")
                assert np.abs(pixels.astype(int) - wanted).mean() < 8
                found[key] = each.name
    assert found.keys() == rows.keys()
    assert [each.samples for each in manifest.splits["train"]] == [9, 9]
    assert [(s.label, s.wnid, s.name) for s in manifest.synsets] == [(i, f"class{i}", f"class{i}") for i in range(3)]
    assert manifest.source == "folder"
    assert bucket.get(f"{manifest.prefix}manifest.json") == MANIFEST.read_bytes()


def test_the_statistics_are_those_of_the_training_images(workplace: Workplace, images: Path) -> None:
    run()
    sums = PixelSums(32)
    for row in index.read(INDEX).to_pylist():
        if row["split"] == "train":
            sums.add(prepare((images / row["path"]).read_bytes(), 32, "triangle"))
    expected, found = PixelStatistics.of(sums), PixelStatistics.read(PIXELS)
    assert all(np.array_equal(getattr(found, name), value) for name, value in vars(expected).items())


def test_no_number_of_workers_changes_a_byte(workplace: Workplace, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for workers in ("1", "2", "5"):
        monkeypatch.setenv("ALEXNET_WORKERS", workers)
        run()
        outcomes.append((objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes()))
        for key in bucket.sizes("shards/"):
            bucket.delete(key)
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_whole_shard_is_kept_and_an_unfinished_one_is_made_again(
    workplace: Workplace, bucket: Bucket, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = run()
    before = (objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes())
    made: list[str] = []

    def counted(samples: Iterable[Sample]) -> bytes:
        made.append("tar")
        return tar_of(samples)

    monkeypatch.setattr(shard, "tar_of", counted)
    run()
    assert made == []
    assert "3 of 3 shards are there already" in capsys.readouterr().out
    bucket.delete(f"{manifest.prefix}train-000001.json")  # killed between the tar and its side file
    bucket.put(f"{manifest.prefix}val-000000.tar", b"half")
    bucket.put(f"{manifest.prefix}train-000000.npz", b"other sums")
    MANIFEST.unlink()
    run()
    assert len(made) == 3
    assert (objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes()) == before


@pytest.mark.parametrize("side", [b"", b"[]", b'{"shard": {"name": "x"}}', b'{"shard": null, "sums_sha256": null}'])
def test_a_damaged_side_file_is_not_believed(workplace: Workplace, bucket: Bucket, side: bytes) -> None:
    manifest = run()
    before = objects(bucket)
    bucket.put(f"{manifest.prefix}train-000000.json", side)
    run()
    assert objects(bucket) == before


@pytest.mark.parametrize(
    "change",
    [
        {"shard": {"jpeg_quality": 90}},
        {"shard": {"filter": "area"}},
        {"shard": {"side_px": 24}},
        {"shard": {"train_shards": 3}},
    ],
)
def test_whatever_decides_about_the_bytes_changes_the_prefix(workplace: Workplace, change: dict[str, dict[str, Any]]) -> None:
    before = run().prefix
    workplace.params(**change)
    assert run().prefix != before


def test_a_source_that_changed_since_validation_stops_the_stage(workplace: Workplace, images: Path) -> None:
    data = (images / "class1/3.jpg").read_bytes()
    (images / "class1/3.jpg").write_bytes(data[:-3] + b"xyz")
    with pytest.raises(
        DataError, match=r"class1/3\.jpg: not the bytes that were validated \(class1_3\); the source changed, run again"
    ):
        run()
    assert not MANIFEST.exists()
    assert not PIXELS.exists()


def test_more_shards_than_images_are_refused(workplace: Workplace) -> None:
    workplace.params(shard={"val_shards": 7})
    with pytest.raises(ParamsError, match=r"shard\.val_shards: 7 shards for 6 images; must be at most as many"):
        run()


def test_dropped_images_are_in_no_shard(workplace: Workplace, images: Path, bucket: Bucket) -> None:
    (images / "class0" / "tiny.png").write_bytes(pictures.file_of(pictures.picture(9, 2, 2), "PNG"))
    write_index()
    manifest = run()
    assert sum(manifest.samples(split) for split in shard.SPLITS) == 24
    assert all(b"tiny" not in body for key, body in objects(bucket).items() if key.endswith(".tar"))


def used(count: int) -> pa.Table:
    rows: list[dict[str, object]] = [
        {
            "key": f"k{i:05}",
            "split": "val" if i % 5 == 0 else "train",
            "wnid": "a",
            "label": 0,
            "path": "",
            "offset": 0,
            "bytes": 1,
        }
        | {"sha256": f"{i:064x}", "width": 9, "height": 9, "mode": "RGB", "format": "JPEG", "fault": None, "action": "use"}
        for i in range(count)
    ]
    return pa.Table.from_pylist(rows, index.SCHEMA)


CONFIG = params.load().shard


@settings(deadline=None, max_examples=30)
@given(st.integers(60, 300), st.integers(1, 12), st.integers(0, 5))
def test_a_plan_holds_every_image_once_in_runs_of_equal_length(count: int, shards: int, seed: int) -> None:
    config = replace(CONFIG, train_shards=shards)
    tasks = shard.plan(used(count), "train", config, seed)
    lengths = [task.rows.num_rows for task in tasks]
    assert max(lengths) - min(lengths) <= 1
    keys = [key for task in tasks for key in task.rows["key"].to_pylist()]
    assert sorted(keys) == [f"k{i:05}" for i in range(count) if i % 5]
    assert keys != sorted(keys)


def test_another_seed_is_another_order_and_another_prefix() -> None:
    table = used(100)
    orders = [shard.plan(table, "train", CONFIG, seed)[0].rows["key"].to_pylist() for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert shard.fingerprint(table, CONFIG, 1) != shard.fingerprint(table, CONFIG, 2)


def test_a_killed_run_loses_only_unfinished_shards(
    workplace: Workplace, bucket: Bucket, images: Path, fresh_store: Store
) -> None:
    for label in range(3):
        for number in range(8, 60):
            (images / f"class{label}" / f"{number}.jpg").write_bytes(pictures.jpeg(1000 + 100 * label + number))
    workplace.params(shard={"train_shards": 20, "val_shards": 5, "side_px": 128})
    write_index()
    expected = run()
    whole = (objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes())
    for key in bucket.sizes("shards/"):
        bucket.delete(key)
    MANIFEST.unlink()
    PIXELS.unlink()
    command = [
        sys.executable,
        "-m",
        "pipelines.shard",
        "--index",
        str(INDEX),
        "--manifest",
        str(MANIFEST),
        "--pixels",
        str(PIXELS),
    ]
    process = subprocess.Popen(command, env=os.environ | environment(fresh_store, images), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while len(bucket.sizes(expected.prefix)) < 8 and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not MANIFEST.exists()
    sides = [key for key in bucket.sizes(expected.prefix) if key.endswith(".json")]
    assert sides
    kept = {key: json.loads(bucket.get(key)) for key in sides}
    run()
    assert (objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes()) == whole
    assert {key: json.loads(bucket.get(key)) for key in sides} == kept


def test_a_source_can_be_sent_to_another_process(workplace: Workplace) -> None:
    import pickle

    source = open_source(params.load().source)
    again: Source = pickle.loads(pickle.dumps(source))
    assert list(again.parts()) == list(source.parts())
