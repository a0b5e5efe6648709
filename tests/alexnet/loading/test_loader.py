"""alexnet/loading/loader.py."""

import contextlib
import gc
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import simplejpeg
import torch
import torchvision
import webdataset as wds
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from alexnet.errors import DataError
from alexnet.loading.dataset import ShardDataset
from alexnet.loading.loader import Batch, Loader
from alexnet.loading.sampler import BatchSampler, Order
from alexnet.shards.cache import ShardCache
from alexnet.shards.tar import index_tar
from tests.support import sample_shards
from tests.support.sample_shards import CLASSES, SIDE_PX, SampleShards

MADE = sample_shards.make([9, 4, 11, 7])
TOTAL = 31
MOST = max(shard.bytes for shard in MADE.shards)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def loader(folder: Path, workers: int = 2, batch_size: int = 5, made: SampleShards = MADE, **options: Any) -> Loader:
    """Options are those of the sampler and of the loader; limit_bytes is the cache's."""
    dataset = made.dataset(folder, options.pop("limit_bytes", None))
    own = {name: options.pop(name) for name in ("on_corrupt",) if name in options}
    sampler = BatchSampler(batch_size, **({"seed": 7, "shuffle": True} | options))
    return Loader(dataset, sampler, workers=workers, **own)


def order(batches: Loader) -> Order:
    """All samples of epoch 0."""
    return batches.sampler.order([shard.samples for shard in batches.dataset.shards], 0)


def whole(batches: list[Batch]) -> Batch:
    """Parts put together, in memory of its own."""
    return Batch(*(torch.cat([getattr(part, name) for part in batches]) for name in ("images", "labels", "samples")))


def equal(first: Batch, second: Batch) -> bool:
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("images", "labels", "samples"))


def pixels(sample: int) -> Tensor:
    return torch.from_numpy(simplejpeg.decode_jpeg(sample_shards.jpeg(sample), "RGB"))


def test_a_batch_holds_the_images_and_labels_of_its_samples(folder: Path) -> None:
    batches = [whole([batch]) for batch in loader(folder).epoch(0)]
    assert [len(batch.labels) for batch in batches] == [5] * 6 + [1]
    for batch in batches:
        assert torch.equal(batch.images, torch.stack([pixels(int(i)) for i in batch.samples]))
        assert batch.labels.tolist() == [int(i) % CLASSES for i in batch.samples]


def test_over_two_epochs_every_sample_appears_once_an_epoch(folder: Path) -> None:
    batches = loader(folder)
    orders = [whole(list(batches.epoch(epoch))).samples.tolist() for epoch in (0, 1)]
    assert [sorted(order) for order in orders] == [list(range(TOTAL))] * 2
    assert orders[0] != orders[1]
    assert batches.steps_per_epoch == 7


@dataclass(frozen=True)
class Setting:
    """What a batch may depend on."""

    window: int | None
    batch_size: int
    epoch: int


SETTINGS = st.builds(Setting, st.sampled_from([None, 1, 2]), st.integers(1, 12), st.integers(0, 3))
FORMS = [(replicas, workers) for replicas in (1, 2, 4) for workers in (0, 1, 3)]


def plain_batches(folder: Path, setting: Setting) -> list[Batch]:
    """By the simplest loader: one replica, no threads, from the start."""
    return list(loader(folder, 0, setting.batch_size, window_shards=setting.window).epoch(setting.epoch))


def steps_of(folder: Path, setting: Setting, form: tuple[int, int], first_step: int, most: int | None = None) -> list[Batch]:
    """Global batches by so many replicas and workers, from a step on, interrupted after `most` of them."""
    replicas, workers = form
    limit = None if setting.window is None else setting.window * MOST
    options: dict[str, Any] = {"window_shards": setting.window, "replicas": replicas, "limit_bytes": limit}
    parts = [loader(folder, workers, setting.batch_size, replica=r, **options) for r in range(replicas)]
    epochs = [part.epoch(setting.epoch, first_step) for part in parts]
    found = [whole(list(step)) for step in itertools.islice(zip(*epochs, strict=True), most)]
    for epoch in epochs:
        epoch.close()
    return found


@pytest.mark.parametrize("form", FORMS, ids=str)
@given(SETTINGS)
@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_batches_are_the_same_for_any_replicas_and_workers(folder: Path, form: tuple[int, int], setting: Setting) -> None:
    plain, found = plain_batches(folder, setting), steps_of(folder, setting, form, 0)
    assert len(found) == len(plain) == loader(folder, batch_size=setting.batch_size).steps_per_epoch
    assert all(equal(mine, theirs) for mine, theirs in zip(found, plain, strict=True))


@given(SETTINGS, st.sampled_from(FORMS), st.sampled_from(FORMS), st.data())
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_interrupted_epoch_and_its_rest_in_another_form_are_the_epoch(
    folder: Path, setting: Setting, before: tuple[int, int], after: tuple[int, int], data: st.DataObject
) -> None:
    plain = plain_batches(folder, setting)
    done = data.draw(st.integers(0, len(plain)))
    found = steps_of(folder, setting, before, 0, done) + steps_of(folder, setting, after, done)
    assert len(found) == len(plain)
    assert all(equal(mine, theirs) for mine, theirs in zip(found, plain, strict=True))


def test_the_ranks_of_a_tower_pair_get_the_same_batches(folder: Path) -> None:
    pair = [list(loader(folder, replica=1, replicas=2).epoch(0)) for _ in range(2)]
    assert all(equal(a, b) for a, b in zip(*pair, strict=True))


def test_resuming_reads_nothing_of_what_was_seen(tmp_path: Path) -> None:
    """With one shard a window, the shards of the steps before are not even fetched."""
    fetched: list[str] = []

    def fetch(name: str, start: int, size: int) -> Iterator[bytes]:
        fetched.append(name)
        return MADE.fetch(name, start, size)

    samples = ShardDataset(MADE.shards, ShardCache(tmp_path, fetch), side_px=SIDE_PX, classes=CLASSES)
    batches = Loader(samples, BatchSampler(5, seed=7, shuffle=True, window_shards=1), workers=1)
    rest = [shard.name for i in order(batches)[25:] for shard in [MADE.shards[samples.shards_and_rows(i[None])[0][0]]]]
    list(batches.epoch(0, first_step=5))
    assert set(fetched) == set(rest) != {shard.name for shard in MADE.shards}


def test_resuming_among_imagenets_number_of_shards_opens_only_those_of_the_rest(tmp_path: Path) -> None:
    made = sample_shards.make([2] * 1024)
    opened: list[str] = []

    def fetch(name: str, start: int, size: int) -> Iterator[bytes]:
        opened.append(name)
        return made.fetch(name, start, size)

    samples = ShardDataset(made.shards, ShardCache(tmp_path, fetch), side_px=SIDE_PX, classes=CLASSES)
    batches = Loader(samples, BatchSampler(8, seed=7, shuffle=True), workers=2)
    rest = order(batches)[2040:]
    assert whole(list(batches.epoch(0, first_step=255))).samples.tolist() == rest.tolist()
    assert sorted(opened) == sorted({f"train-{sample // 2:06}.tar" for sample in rest.tolist()})


def size(folder: Path) -> int:
    """Bytes of the cached shards; one may go while we look."""
    total = 0
    for path in folder.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def test_a_cache_of_two_shards_serves_an_epoch(tmp_path: Path) -> None:
    made = sample_shards.make([6] * 8)
    limit = 2 * max(shard.bytes for shard in made.shards)
    seen, most = [], 0
    for batch in loader(tmp_path, 3, 5, made, window_shards=1, limit_bytes=limit).epoch(0):
        seen += batch.samples.tolist()
        most = max(most, size(tmp_path))
    assert sorted(seen) == list(range(48))
    assert most <= limit


def test_each_shard_is_fetched_once_an_epoch_though_the_cache_holds_two(tmp_path: Path) -> None:
    made = sample_shards.make([6] * 8)
    fetched: list[str] = []

    def fetch(name: str, start: int, size: int) -> Iterator[bytes]:
        fetched.append(name)
        return made.fetch(name, start, size)

    limit = 2 * max(shard.bytes for shard in made.shards)
    samples = ShardDataset(made.shards, ShardCache(tmp_path, fetch, limit_bytes=limit), side_px=SIDE_PX, classes=CLASSES)
    list(Loader(samples, BatchSampler(5, seed=1, shuffle=True, window_shards=1), workers=2).epoch(0))
    assert sorted(fetched) == [shard.name for shard in made.shards]


def mapped_bytes(folder: Path) -> int:
    """Bytes of this folder's shards that this process has mapped, removed ones included."""
    ranges = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    return sum(int(end, 16) - int(start, 16) for start, end in ranges)


def test_once_an_epoch_is_over_a_limited_cache_has_its_room_back(tmp_path: Path) -> None:
    """Validation fills the same folder: shards that training still had mapped would need room beside it."""
    made = sample_shards.make([6] * 8)
    limit = 2 * max(shard.bytes for shard in made.shards)
    batches = loader(tmp_path, 2, 5, made, window_shards=1, limit_bytes=limit)
    epoch = batches.epoch(0)
    next(epoch)
    gc.collect()
    assert mapped_bytes(tmp_path) > 0
    list(epoch)
    gc.collect()
    assert mapped_bytes(tmp_path) == 0


def test_an_order_that_the_cache_cannot_hold_is_refused_at_once(tmp_path: Path) -> None:
    message = (
        r"samples: 4 shards of together [\d,]+ bytes are mixed at a time, the cache may hold [\d,]+; .* lower window_shards"
    )
    with pytest.raises(DataError, match=message):
        loader(tmp_path, limit_bytes=2 * MOST)


# Corrupt samples.


def corrupted() -> SampleShards:
    """Sample 3 is cut, sample 5 has another size; digests are true: this passed sharding."""
    bodies = [sample_shards.jpeg(i) for i in range(8)]
    bodies[3] = bodies[3][: len(bodies[3]) // 2]
    bodies[5] = sample_shards.jpeg(5, side_px=16)
    members = [part for i, body in enumerate(bodies) for part in ((f"k{i}.jpg", body), (f"k{i}.cls", b"%d" % (i % CLASSES)))]
    body = sample_shards.tar(members)
    return SampleShards(
        {"train-000000.tar": body}, [sample_shards.describe("train-000000.tar", body, [i % CLASSES for i in range(8)])]
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_sample_is_an_error_that_names_shard_key_and_offset(tmp_path: Path, workers: int) -> None:
    made = corrupted()
    offset = index_tar(made.tars["train-000000.tar"], "s").offsets[3]
    with pytest.raises(
        DataError, match=rf"^train-000000\.tar: the image of key k3 at byte {offset} \(.* bytes\) cannot be used: "
    ) as error:
        list(loader(tmp_path, workers, 4, made, shuffle=False).epoch(0))
    assert isinstance(error.value.__cause__, ValueError)


def test_an_image_of_another_size_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"key k5 at byte \d+ .* it is 16x16 pixels, not 32x32"):
        list(loader(tmp_path, 0, 4, corrupted(), shuffle=False).epoch(0, first_step=1))


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_puts_the_next_good_sample_in_the_place_and_counts(tmp_path: Path, workers: int) -> None:
    batches = loader(tmp_path, workers, 4, corrupted(), shuffle=False, on_corrupt="skip")
    batch = whole(list(batches.epoch(0)))
    assert batch.samples.tolist() == [0, 1, 2, 4, 4, 6, 6, 7]
    assert batch.labels.tolist() == [i % CLASSES for i in batch.samples.tolist()]
    assert torch.equal(batch.images[3], pixels(4))
    assert sorted(batches.skipped) == [3, 5]
    assert "key k3 at byte" in batches.skipped[3]
    assert batches.steps_per_epoch == 2


def test_a_shard_without_a_good_sample_is_an_error_even_when_skipping(tmp_path: Path) -> None:
    body = sample_shards.tar([("a.jpg", b"no image"), ("a.cls", b"0")])
    made = SampleShards({"s.tar": body}, [sample_shards.describe("s.tar", body, [0])])
    with pytest.raises(DataError, match="key a at byte"):
        list(loader(tmp_path, 1, 4, made, on_corrupt="skip").epoch(0))


def test_a_label_beyond_the_manifests_classes_is_an_error(tmp_path: Path) -> None:
    body = sample_shards.tar([("a.jpg", sample_shards.jpeg(0)), ("a.cls", b"3")])
    made = SampleShards({"s.tar": body}, [sample_shards.describe("s.tar", body, [3])])
    with pytest.raises(DataError, match=r"s\.tar: holds label 3, the manifest has 3 classes"):
        list(loader(tmp_path, 1, 4, made).epoch(0))


# Threads.


def test_closing_an_epoch_early_ends_its_threads(folder: Path) -> None:
    before = set(threading.enumerate())
    epoch = loader(folder, 3, 2).epoch(0)
    next(epoch)
    assert set(threading.enumerate()) > before
    epoch.close()
    assert set(threading.enumerate()) == before


def test_dropping_an_epoch_ends_its_threads(folder: Path) -> None:
    before = set(threading.enumerate())
    for _ in loader(folder, 3, 2).epoch(0):
        break
    gc.collect()
    assert set(threading.enumerate()) == before


def test_a_failing_fetch_surfaces_with_its_cause(tmp_path: Path) -> None:
    def fetch(name: str, start: int, size: int) -> Iterator[bytes]:
        raise DataError(f"s3://data/{name}: no such object") from ConnectionError("refused")

    samples = ShardDataset(MADE.shards, ShardCache(tmp_path, fetch), side_px=SIDE_PX, classes=CLASSES)
    with pytest.raises(DataError, match=r"s3://data/train-.*: no such object") as error:
        list(Loader(samples, BatchSampler(4, seed=1, shuffle=True), workers=2).epoch(0))
    assert isinstance(error.value.__cause__, ConnectionError)


def test_what_failed_in_one_epoch_is_tried_again_in_the_next(tmp_path: Path) -> None:
    down = [True]

    def fetch(name: str, start: int, size: int) -> Iterator[bytes]:
        if down:
            raise DataError(f"s3://data/{name}: no answer")
        return MADE.fetch(name, start, size)

    samples = ShardDataset(MADE.shards, ShardCache(tmp_path, fetch), side_px=SIDE_PX, classes=CLASSES)
    batches = Loader(samples, BatchSampler(4, seed=1, shuffle=True), workers=2)
    with pytest.raises(DataError, match="no answer"):
        list(batches.epoch(0))
    with pytest.raises(DataError, match="no answer"):
        _ = sample_shards.labels(samples)
    down.clear()
    assert len(whole(list(batches.epoch(0))).samples) == TOTAL


def test_a_fetch_that_hangs_is_an_error_that_names_the_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.loading.loader._PATIENCE_SECONDS", 1.5)
    hang = threading.Event()

    def fetch(name: str, start: int, size: int) -> Iterator[bytes]:
        hang.wait(30)
        yield from MADE.fetch(name, start, size)

    samples = ShardDataset(MADE.shards, ShardCache(tmp_path, fetch, streams=1), side_px=SIDE_PX, classes=CLASSES)
    batches = Loader(samples, BatchSampler(4, seed=1, shuffle=False), workers=1)
    begin = time.monotonic()
    with pytest.raises(
        DataError, match=r"loader: no progress for 2 s, waiting for train-000000\.tar; check the store and run again"
    ):
        next(batches.epoch(0))
    hang.set()
    assert time.monotonic() - begin < 10


def test_a_slow_fetch_that_makes_progress_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.loading.loader._PATIENCE_SECONDS", 1.0)

    def fetch(name: str, start: int, size: int) -> Iterator[bytes]:
        for chunk in MADE.fetch(name, start, size):
            time.sleep(0.2)
            yield chunk

    samples = ShardDataset(MADE.shards[:1], ShardCache(tmp_path, fetch), side_px=SIDE_PX, classes=CLASSES)
    assert len(list(Loader(samples, BatchSampler(4, seed=1, shuffle=False), workers=1).epoch(0))) == 3


# Memory.


def test_a_batch_that_is_referenced_is_not_overwritten(folder: Path) -> None:
    batches = loader(folder, 2, 2)
    both = [*batches.epoch(0), *batches.epoch(0)]
    assert all(torch.equal(batch.images, torch.stack([pixels(int(i)) for i in batch.samples])) for batch in both)


@pytest.mark.parametrize(
    "keep", [lambda images: images[1:], lambda images: images.numpy()[0], lambda images: images.permute(0, 3, 1, 2)]
)
def test_a_view_of_a_batch_is_never_overwritten(folder: Path, keep: object) -> None:
    batches = loader(folder, 0, 2)
    epoch = batches.epoch(0)
    view = keep(next(epoch).images)  # type: ignore[operator]
    before = view.copy() if hasattr(view, "copy") else view.clone()
    for _ in epoch:
        pass
    assert (view == before).all()


# Peers.


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file to the collector
def test_webdataset_reads_the_same_samples_from_the_cached_files(tmp_path: Path) -> None:
    ours = whole(list(loader(tmp_path, 1, shuffle=False).epoch(0)))
    paths = [str(tmp_path / f"{shard.sha256}.tar") for shard in MADE.shards]
    theirs = list(wds.WebDataset(paths, shardshuffle=False).decode("torchrgb8", only=["jpg"]))
    assert [int(sample["cls"]) for sample in theirs] == ours.labels.tolist()
    for sample, image in zip(theirs, ours.images, strict=True):
        difference = sample["jpg"].permute(1, 2, 0).int() - image.int()
        assert difference.abs().max() <= 2  # another decoder's rounding


@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
def test_tar_unpacks_the_cached_files_and_torchvision_decodes_the_images(folder: Path, tmp_path: Path) -> None:
    ours = whole(list(loader(folder, 1, shuffle=False).epoch(0)))
    for shard in MADE.shards:
        subprocess.run(["tar", "-xf", folder / f"{shard.sha256}.tar", "-C", tmp_path], check=True)
    paths = sorted(tmp_path.glob("*.jpg"))
    assert [int(path.with_suffix(".cls").read_text()) for path in paths] == ours.labels.tolist()
    for path, image in zip(paths, ours.images, strict=True):
        theirs = torchvision.io.decode_jpeg(torchvision.io.read_file(str(path)))
        assert (theirs.permute(1, 2, 0).int() - image.int()).abs().max() <= 2  # another build of the decoder


def test_shards_by_webdatasets_own_writer_are_read(tmp_path: Path) -> None:
    path = tmp_path / "theirs.tar"
    with wds.TarWriter(str(path)) as writer:
        for i in range(5):
            writer.write({"__key__": f"k{i}", "jpg": sample_shards.jpeg(i), "cls": i % CLASSES})
    made = SampleShards(
        {"theirs.tar": path.read_bytes()},
        [sample_shards.describe("theirs.tar", path.read_bytes(), [i % CLASSES for i in range(5)])],
    )
    batch = whole(list(loader(tmp_path, 1, made=made, shuffle=False).epoch(0)))
    assert torch.equal(batch.images, torch.stack([pixels(i) for i in range(5)]))
    assert batch.labels.tolist() == [0, 1, 2, 0, 1]
