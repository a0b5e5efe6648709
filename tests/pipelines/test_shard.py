import errno
import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from alexnet.errors import DataError, ParamsError
from alexnet.images.resize import Filter, decode, encode, prepare, turn
from alexnet.images.statistics import PixelStatistics, PixelSums
from alexnet.shards.manifest import Manifest, Shard
from alexnet.shards.tar import Sample, index_tar, tar_of
from pipelines import shard
from pipelines.cli import pictures
from pipelines.config import params
from pipelines.runtime.environment import Store
from pipelines.runtime.errors import Denied, Unreachable
from pipelines.sources.open import Source, open_source
from pipelines.storage.bucket import Bucket
from pipelines.validation import index
from tests.support.fault_proxy import Fault, FaultProxy, Request
from tests.support.stage_folder import INDEX, MANIFEST, PIXELS, StageFolder, environment, make_image_folder, make_stage_folder


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return make_image_folder(tmp_path / "images", classes=3, images=8)


@pytest.fixture
def stage_folder(tmp_path: Path, fresh_store: Store, images: Path, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    (tmp_path / "work").mkdir()
    stage_folder = make_stage_folder(tmp_path / "work", fresh_store, images, monkeypatch)
    write_index()
    return stage_folder


def write_index() -> None:
    given = params.load()
    source = open_source(given.source)
    index.write(index.complete(index.scan(source, given.validate), given.validate, 0.25), INDEX)


def run() -> Manifest:
    shard.main(INDEX, MANIFEST, PIXELS)
    return Manifest.read(MANIFEST)


def objects(bucket: Bucket) -> dict[str, bytes]:
    return {key: bucket.get(key) for key in bucket.sizes("shards/")}


def test_every_image_is_in_one_shard_with_its_label(stage_folder: StageFolder, bucket: Bucket, images: Path) -> None:
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


def test_a_test_split_has_shards_of_its_own_and_changes_no_other(
    stage_folder: StageFolder, bucket: Bucket, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for split, numbers in (("train", range(4)), ("validation", range(4, 6)), ("test", range(6, 8))):
        for label in range(3):
            (tmp_path / f"given/{split}/class{label}").mkdir(parents=True)
            for number in numbers:
                name = f"class{label}/{number}.jpg"
                (tmp_path / "given" / split / name).write_bytes((images / name).read_bytes())
    monkeypatch.setenv("ALEXNET_SOURCE", str(tmp_path / "given"))
    write_index()
    manifest, pixels = run(), PIXELS.read_bytes()
    assert {name: [each.samples for each in shards] for name, shards in manifest.splits.items()} == {
        "test": [6],
        "train": [6, 6],
        "val": [6],
    }
    (shard_of_test,) = manifest.splits["test"]
    assert shard_of_test.name == "test-000000.tar"
    keys = index_tar(bucket.get(manifest.prefix + shard_of_test.name), shard_of_test.name).keys
    assert sorted(keys) == [f"class{label}_{number}" for label in range(3) for number in (6, 7)]
    shutil.rmtree(tmp_path / "given/test")
    write_index()
    without = run()
    assert '"test"' not in MANIFEST.read_text()
    assert without.prefix != manifest.prefix
    assert manifest.splits == without.splits | {"test": (shard_of_test,)}
    assert PIXELS.read_bytes() == pixels


def test_the_statistics_are_those_of_the_training_images(stage_folder: StageFolder, images: Path) -> None:
    run()
    sums = PixelSums(32)
    for row in index.read(INDEX).to_pylist():
        if row["split"] == "train":
            sums.add(prepare((images / row["path"]).read_bytes(), 32, "triangle"))
    expected, found = PixelStatistics.from_sums(sums), PixelStatistics.read(PIXELS)
    assert all(np.array_equal(getattr(found, name), value) for name, value in vars(expected).items())


def test_workers_change_no_byte(stage_folder: StageFolder, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    outcomes = []
    for workers in ("1", "2", "5"):
        monkeypatch.setenv("ALEXNET_WORKERS", workers)
        run()
        outcomes.append((objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes()))
        for key in bucket.sizes("shards/"):
            bucket.delete(key)
    assert outcomes[0] == outcomes[1] == outcomes[2]


def test_a_whole_shard_is_kept_and_an_unfinished_one_is_made_again(
    stage_folder: StageFolder, bucket: Bucket, images: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
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


def flip(bucket: Bucket, key: str, at: int = 1000) -> None:
    body = bytearray(bucket.get(key))
    body[at] ^= 1
    bucket.put(key, bytes(body))


def test_what_is_damaged_in_the_store_is_made_again(stage_folder: StageFolder, bucket: Bucket) -> None:
    """Of the same size, so that only a digest tells: a tar, pixel sums, and every part of a side file that a bit can change."""
    manifest = run()
    before = objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes()
    side = f"{manifest.prefix}train-000001.json"
    whole = bucket.get(side)
    flip(bucket, f"{manifest.prefix}val-000000.tar")
    flip(bucket, f"{manifest.prefix}train-000000.npz", 200)
    for part in (
        b'"sha256": "',
        b'"sums_sha256": "',
        b'"bytes": ',
        b'"samples": ',
        b'"name": "train-00000',
        b'"labels": {\n   "0": ',
    ):
        flip(bucket, side, whole.index(part) + len(part))
        MANIFEST.unlink()
        PIXELS.unlink()
        run()
        assert (objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes()) == before, part
    bucket.put(side, b"[" * 10_000 + b"]" * 10_000)
    run()
    assert objects(bucket) == before[0]


@pytest.mark.parametrize(
    ("fault", "error"), [(Fault(status=403, code="AccessDenied"), Denied), (Fault(status=503, code="SlowDown"), Unreachable)]
)
def test_a_side_file_that_cannot_be_read_now_is_not_taken_for_a_missing_one(
    stage_folder: StageFolder,
    no_pauses: None,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    fault: Fault,
    error: type[DataError],
) -> None:
    run()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    proxy.faults = lambda request: fault if request.method == "GET" and request.path.endswith(".json") else None
    with pytest.raises(error):
        run()
    assert put_keys(proxy) == []


@pytest.mark.parametrize("side", [b"", b"[]", b'{"shard": {"name": "x"}}', b'{"shard": null, "sums_sha256": null}'])
def test_a_shard_with_a_damaged_side_file_is_made_again(stage_folder: StageFolder, bucket: Bucket, side: bytes) -> None:
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
def test_whatever_decides_about_the_bytes_changes_the_prefix(
    stage_folder: StageFolder, change: dict[str, dict[str, Any]]
) -> None:
    before = run().prefix
    stage_folder.params(**change)
    assert run().prefix != before


def test_a_source_that_changed_since_validation_stops_the_stage(stage_folder: StageFolder, images: Path) -> None:
    data = (images / "class1/3.jpg").read_bytes()
    (images / "class1/3.jpg").write_bytes(data[:-3] + b"xyz")
    with pytest.raises(
        DataError,
        match=r"class1/3\.jpg: not the bytes that were validated \(class1_3\), also .*; run `dvc repro --force validate`",
    ):
        run()
    assert not MANIFEST.exists()
    assert not PIXELS.exists()


def test_more_shards_than_images_are_refused(stage_folder: StageFolder) -> None:
    stage_folder.params(shard={"val_shards": 7})
    with pytest.raises(ParamsError, match=r"shard\.val_shards: 7 shards for the 6 images of the split val; must be"):
        run()


def test_dropped_images_are_in_no_shard(stage_folder: StageFolder, images: Path, bucket: Bucket) -> None:
    (images / "class0" / "tiny.png").write_bytes(pictures.encode_image(pictures.draw_image(9, 2, 2), "PNG"))
    write_index()
    manifest = run()
    assert sum(each.samples for shards in manifest.splits.values() for each in shards) == 24
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


@pytest.mark.parametrize("kills", [(4,), pytest.param((1, 7, 14, 20, 9), marks=pytest.mark.slow)])
def test_whatever_was_finished_before_a_kill_is_not_written_again(
    stage_folder: StageFolder,
    bucket: Bucket,
    images: Path,
    fresh_store: Store,
    proxy: FaultProxy,
    monkeypatch: pytest.MonkeyPatch,
    kills: tuple[int, ...],
) -> None:
    for label in range(3):
        for number in range(8, 40):
            (images / f"class{label}" / f"{number}.jpg").write_bytes(pictures.jpeg(1000 + 100 * label + number))
    stage_folder.params(shard={"train_shards": 20, "val_shards": 5, "side_px": 128})
    write_index()
    expected = run()
    whole = (objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes())
    for key in bucket.sizes("shards/"):
        bucket.delete(key)
    MANIFEST.unlink()
    PIXELS.unlink()
    kept: set[str] = set()
    for more in kills:  # objects, of three a shard, of which several are written at once: one of four may be whole
        run_and_kill(bucket, expected.prefix, len(bucket.sizes(expected.prefix)) + more, int(more > 3), fresh_store, images)
        assert not MANIFEST.exists()
        sides = {key for key in bucket.sizes(expected.prefix) if key.endswith(".json")}
        assert kept <= sides
        kept = sides
    assert kept
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    run()
    assert (objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes()) == whole
    assert put_keys(proxy) == [key for key in whole[0] if key.rpartition(".")[0] + ".json" not in kept]


def run_and_kill(bucket: Bucket, prefix: str, objects: int, whole: int, store: Store, images: Path) -> None:
    """The stage in a process of its own, killed when so many objects are there, and so many whole shards."""

    def reached() -> bool:
        keys = bucket.sizes(prefix)
        return len(keys) >= objects and sum(key.endswith(".json") for key in keys) >= whole

    places = ["--index", str(INDEX), "--manifest", str(MANIFEST), "--pixels", str(PIXELS)]
    command = [sys.executable, "-m", "pipelines.shard", *places]
    process = subprocess.Popen(command, env=os.environ | environment(store, images), stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not reached() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def put_keys(proxy: FaultProxy) -> list[str]:
    """The keys that were written through the proxy, sorted."""
    return sorted(request.path.split("/", 2)[2] for request in proxy.seen if request.method == "PUT")


TROUBLE = {  # of the first request for whatever ends so
    "0.jpg": Fault(status=500),
    "1.jpg": Fault(status=503, code="SlowDown"),
    "2.jpg": Fault(cut_at=300, how="reset"),
    "3.jpg": Fault(cut_at=200, how="stall"),
    "4.jpg": Fault(flip_at=300),
    "5.jpg": Fault(bytes_per_second=4_000),
    "6.jpg": Fault(lose_reply=True),
    "7.jpg": Fault(cut_at=0),
    "train-000000.tar": Fault(status=500),
    "train-000001.tar": Fault(reset_upload_at=5_000),
    "val-000000.tar": Fault(lose_reply=True),
    ".npz": Fault(status=503, code="SlowDown"),
    ".json": Fault(lose_reply=True),
}


def trouble(request: Request) -> Fault | None:
    return next((fault for end, fault in TROUBLE.items() if request.path.endswith(end) and request.number == 0), None)


def test_from_a_bucket_to_a_bucket_no_network_failure_changes_a_byte(
    stage_folder: StageFolder,
    bucket: Bucket,
    images: Path,
    proxy: FaultProxy,
    impatient: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for path in images.rglob("*.jpg"):
        bucket.upload(path, f"raw/{path.relative_to(images)}")
    monkeypatch.setenv("ALEXNET_SOURCE", f"s3://{bucket.name}/raw")
    monkeypatch.setenv("ALEXNET_WORKERS", "3")
    write_index()
    expected = run()
    whole = (objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes())
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    for key in bucket.sizes("shards/"):
        bucket.delete(key)
    proxy.faults = trouble
    assert run() == expected
    assert (objects(bucket), MANIFEST.read_bytes(), PIXELS.read_bytes()) == whole
    again = {end for end in TROUBLE if any(request.number for request in proxy.seen if request.path.endswith(end))}
    assert again == TROUBLE.keys() - {"5.jpg"}  # slow is not broken


def test_credentials_that_expire_in_the_middle_are_named_and_what_was_finished_is_kept(
    stage_folder: StageFolder, bucket: Bucket, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = run()
    for key in bucket.sizes("shards/"):
        bucket.delete(key)
    MANIFEST.unlink()
    PIXELS.unlink()
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.endpoint)
    proxy.faults = lambda request: Fault(status=403, code="ExpiredToken") if any_side(bucket) else None
    with pytest.raises(DataError, match="ExpiredToken; renew the credentials and run again; what was finished is kept"):
        run()
    assert {path.name for path in MANIFEST.parent.iterdir()} == {INDEX.name}
    kept = [key for key in bucket.sizes(expected.prefix) if key.endswith(".json")]
    assert kept
    proxy.faults = lambda request: None
    proxy.seen.clear()
    assert run() == expected
    assert not set(kept) & set(put_keys(proxy))


def any_side(bucket: Bucket) -> bool:
    return any(key.endswith(".json") for key in bucket.sizes("shards/"))


@pytest.mark.parametrize("name", [MANIFEST.name, PIXELS.name])
def test_a_full_disk_leaves_no_half_of_a_file(
    stage_folder: StageFolder, bucket: Bucket, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = os.fsync

    def full(file: int) -> None:
        if name in str(Path(f"/proc/self/fd/{file}").readlink()):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(file)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        run()
    assert {path.name for path in MANIFEST.parent.iterdir()} <= {INDEX.name, PIXELS.name} - {name}


def test_a_shard_that_vanishes_meanwhile_is_named_and_no_manifest_lists_it(
    stage_folder: StageFolder, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shards = shard.write_shards

    def write_and_lose(tasks: list[shard.Task], bucket: Bucket, job: shard.ShardJob) -> tuple[list[Shard], PixelSums]:
        made = write_shards(tasks, bucket, job)
        bucket.put(f"{job.prefix}train-000001.tar", b"another's")
        return made

    monkeypatch.setattr(shard, "write_shards", write_and_lose)
    with pytest.raises(DataError, match=r"train-000001\.tar: has 9 bytes, [\d,]+ were written; another program changed it"):
        run()
    assert not MANIFEST.exists()
    assert not any(key.endswith("manifest.json") for key in bucket.sizes("shards/"))
    monkeypatch.setattr(shard, "write_shards", write_shards)
    run()


def test_a_worker_with_another_bucket_or_other_codecs_makes_nothing(stage_folder: StageFolder, bucket: Bucket) -> None:
    config = params.load().shard
    task = shard.plan(used(20), "val", config, 1)[0]
    job = shard.ShardJob(open_source(params.load().source), "shards/x/", config, bucket.place, shard.codecs())
    elsewhere = replace(job, place="s3://data at http://10.0.0.1:9000")
    with pytest.raises(DataError, match=r"the run's is s3://data at http://10\.0\.0\.1:9000; set ALEXNET_BUCKET and AWS_END"):
        shard.write_shard(elsewhere, (task, False))
    older = replace(job, codecs=job.codecs | {"pillow": "1.0"})
    with pytest.raises(DataError, match=r"versions of a worker on .*'pillow': '1\.0'.*; install the same there"):
        shard.write_shard(older, (task, False))
    assert bucket.sizes("") == {}


class Far:
    """A source that takes its time."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.reading = self.most = self.started = 0
        self._lock = threading.Lock()

    def read(self, *_: object) -> bytes:
        with self._lock:
            self.started += 1
            self.reading += 1
            self.most = max(self.most, self.reading)
        time.sleep(0.02)
        with self._lock:
            self.reading -= 1
        return self.body


@pytest.mark.parametrize(("size", "least", "most"), [(1000, 8, 16), (6 << 20, 3, 3)])
def test_images_are_read_ahead_in_order_and_within_bounds(size: int, least: int, most: int) -> None:
    source = Far(pictures.jpeg(1))
    digest = hashlib.sha256(source.body).hexdigest()
    rows = used(60).to_pylist()
    table = pa.Table.from_pylist([row | {"bytes": size, "sha256": digest} for row in rows], index.SCHEMA)
    task = shard.Task("train", 0, table)
    keys = []
    for sample in shard.samples(cast("Source", source), CONFIG, task, None, Counter()):
        keys.append(sample.key)
        assert source.started <= len(keys) + most
    assert keys == table["key"].to_pylist()
    assert least <= source.most <= most


GOLDEN = {  # by CODE: another digest needs another CODE
    1: "98d87b9ccac1e2cacb7327a745752223300f6a329166c5bf4adf30046db48eea",
}
CODECS = {"cykooz.resizer": "4.0.1", "pillow": "13.0.0", "simplejpeg": "1.9.0"}


def test_the_code_makes_the_bytes_that_its_number_stands_for() -> None:
    """No processor changes them: libjpeg-turbo and the resizer calculate in whole numbers whatever instructions they use."""
    if shard.codecs() != CODECS:
        pytest.skip("other codecs than those of requirements.lock")
    y, x = np.mgrid[:300, :420]
    pixels = np.stack([(7 * x + 3 * y) % 256, x * y // 16 % 256, ((x - 200) ** 2 + (y - 150) ** 2) // 300 % 256], -1)
    pixels = pixels.astype(np.uint8)
    files = [encode(pixels, 90), encode(np.tile(pixels, (4, 4, 1)), 80), pictures.encode_image(Image.fromarray(pixels), "PNG")]
    files.append(pictures.encode_image(Image.fromarray(pixels[:40, :40]), "BMP"))
    rows = used(4).to_pylist()
    for number, (row, data) in enumerate(zip(rows, files, strict=True)):
        row |= {"offset": number, "label": number, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    source = Far(b"")
    source.read = lambda path, offset, size: files[offset]  # type: ignore[method-assign,misc,assignment]
    task = shard.Task("train", 0, pa.Table.from_pylist(rows, index.SCHEMA))
    digest = hashlib.sha256()
    for by in get_args(Filter):
        config = replace(CONFIG, side_px=128, jpeg_quality=95, filter=by)
        digest.update(tar_of(shard.samples(cast("Source", source), config, task, None, Counter())))
    assert digest.hexdigest() == GOLDEN[shard.CODE]


def test_turned_pictures_are_another_prefix_and_upright_ones_are_not() -> None:
    rows = used(9).to_pylist()
    plain = shard.fingerprint(used(9), CONFIG, 1)
    changes: list[tuple[dict[str, object], bool]] = [
        ({"orientation": 6, "turn": None}, False),
        ({"orientation": 1, "turn": 1}, False),
        ({"orientation": 6, "turn": 6}, True),
        ({"orientation": 6, "turn": None, "format": "TIFF"}, True),
    ]
    for change, is_other in changes:
        table = pa.Table.from_pylist([*rows[:-1], rows[-1] | change], index.SCHEMA)
        assert (shard.fingerprint(table, CONFIG, 1) != plain) == is_other


def test_a_shard_holds_its_pictures_as_they_are_meant() -> None:
    data = pictures.rotated_jpeg(1)
    row = used(1).to_pylist()[0] | {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    pixels = []
    for orientation in (None, 6):
        task = shard.Task("train", 0, pa.Table.from_pylist([row | {"turn": orientation}], index.SCHEMA))
        (sample,) = shard.samples(cast("Source", Far(data)), CONFIG, task, None, Counter())
        pixels.append(decode(sample.jpeg))
    assert np.abs(turn(pixels[0], 6).astype(int) - pixels[1]).mean() < 3


def test_other_codecs_are_another_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    before = shard.fingerprint(used(9), CONFIG, 1)
    monkeypatch.setattr(shard, "codecs", lambda: {"pillow": "1.0"})
    assert shard.fingerprint(used(9), CONFIG, 1) != before


def test_a_source_can_be_sent_to_another_process(stage_folder: StageFolder) -> None:
    import pickle

    source = open_source(params.load().source)
    again: Source = pickle.loads(pickle.dumps(source))
    assert list(again.partitions()) == list(source.partitions())
