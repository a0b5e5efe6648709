"""alexnet/loading/device.py."""

import sys
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import torch

from alexnet.errors import DataError, ParamsError
from alexnet.loading import device as device_feed
from alexnet.loading.device import _AHEAD, to_device, to_host
from alexnet.loading.loader import Batch, Loader
from alexnet.loading.sampler import BatchSampler
from tests.support import sample_shards
from tests.support.sample_shards import CLASSES, SampleShards

MADE = sample_shards.make([9, 6])
CPU = torch.device("cpu")
JPEGS = {"a": sample_shards.jpeg(0), "b": b"no image at all", "c": sample_shards.jpeg(2), "d": sample_shards.jpeg(3)}


def loader(folder: Path, made: SampleShards = MADE, *, pin_memory: bool = False) -> Loader:
    return Loader(made.dataset(folder), BatchSampler(4, seed=3, shuffle=True), workers=2, pin_memory=pin_memory)


def copied(batches: list[Batch]) -> list[tuple[list[int], list[int]]]:
    return [(batch.samples.tolist(), batch.labels.tolist()) for batch in batches]


def test_on_a_cpu_the_batches_pass_as_they_are(tmp_path: Path) -> None:
    plain, fed = list(loader(tmp_path).epoch(0)), list(to_device(loader(tmp_path).epoch(0), CPU))
    assert copied(fed) == copied(plain)
    assert all(torch.equal(a.images, b.images) for a, b in zip(fed, plain, strict=True))


@pytest.mark.parametrize("device", [CPU, pytest.param(torch.device("cuda"), marks=pytest.mark.gpu)])
def test_results_come_to_the_host_in_order(device: torch.device) -> None:
    results = ((number, {"x": torch.full((1000, 1000), number, device=device)}) for number in range(5))
    for number, (item, tensors) in enumerate(to_host(results)):
        assert item == number
        assert torch.equal(tensors["x"], torch.full((1000, 1000), number))
    assert number == 4


def test_decoding_on_the_device_gives_the_same_batches_within_rounding(tmp_path: Path) -> None:
    batches = loader(tmp_path)
    plain = list(batches.epoch(1, first_step=1))
    decoded = list(to_device(batches.epoch_encoded(1, first_step=1), CPU))
    assert copied(decoded) == copied(plain)
    for mine, theirs in zip(decoded, plain, strict=True):
        assert mine.images.shape == theirs.images.shape
        assert (mine.images.int() - theirs.images.int()).abs().max() <= 2


def test_a_sample_the_device_cannot_decode_is_named(tmp_path: Path) -> None:
    members = [("a.jpg", sample_shards.jpeg(0)), ("a.cls", b"0"), ("b.jpg", b"no image at all"), ("b.cls", b"1")]
    body = sample_shards.tar(members)
    made = SampleShards({"s.tar": body}, [sample_shards.describe("s.tar", body, [0, 1])])
    batches = loader(tmp_path, made)
    with pytest.raises(DataError, match=r"s\.tar: the image of key b at byte \d+"):
        list(to_device(batches.epoch_encoded(0), CPU))


def test_a_sample_the_device_cannot_decode_is_skipped_and_counted_if_configured(tmp_path: Path) -> None:
    members = [(f"{key}.{end}", body) for key, jpeg in JPEGS.items() for end, body in (("jpg", jpeg), ("cls", b"1"))]
    body = sample_shards.tar(members)
    made = SampleShards({"s.tar": body}, [sample_shards.describe("s.tar", body, [1] * len(JPEGS))])
    batches = Loader(made.dataset(tmp_path), BatchSampler(2, seed=3, shuffle=False), workers=2, on_corrupt="skip")
    plain, decoded = list(batches.epoch(0)), list(to_device(batches.epoch_encoded(0), CPU))
    assert copied(decoded) == copied(plain) == [([0, 2], [1, 1]), ([2, 3], [1, 1])]
    assert [int((a.images.int() - b.images.int()).abs().max()) for a, b in zip(plain, decoded, strict=True)] == [0, 0]
    assert sorted(batches.skipped) == [1]


def test_an_image_that_only_the_host_can_decode_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def decode(jpegs: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        raise RuntimeError("unsupported")

    monkeypatch.setattr(device_feed, "_decode_jpegs", decode)
    with pytest.raises(DataError, match=r"cpu cannot decode one of them, the host can: unsupported; decode on the host"):
        list(to_device(loader(tmp_path).epoch_encoded(0), CPU))


def test_without_torchvision_decoding_on_the_device_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.io", None)
    with pytest.raises(
        ParamsError, match=r"train\.decode: is device, which needs torchvision \(pip install .*, or decode on the"
    ):
        list(to_device(loader(tmp_path).epoch_encoded(0), CPU))


def test_an_empty_share_is_an_empty_batch(tmp_path: Path) -> None:
    made = sample_shards.make([1])
    batches = Loader(made.dataset(tmp_path), BatchSampler(4, seed=3, shuffle=True, replica=0, replicas=2), workers=2)
    (plain,), (decoded,) = list(batches.epoch(0)), list(to_device(batches.epoch_encoded(0), CPU))
    assert plain.images.shape == decoded.images.shape == (0, 32, 32, 3)


def test_a_failing_fetch_surfaces_in_encoded_epochs_too(tmp_path: Path) -> None:
    batches = loader(tmp_path, SampleShards(dict.fromkeys(MADE.tars, b"other bytes"), MADE.shards))
    with pytest.raises(DataError, match=r"train-00000\d\.tar: ends at byte 11, the manifest says"):
        list(batches.epoch_encoded(0))


@pytest.mark.gpu
def test_on_a_gpu_the_batches_arrive_whole_though_memory_is_used_again(tmp_path: Path) -> None:
    device = torch.device("cuda")
    made = sample_shards.make([40] * 4)
    plain = list(Loader(made.dataset(tmp_path), BatchSampler(8, seed=3, shuffle=True), workers=0).epoch(0))
    fed = []
    for batch in to_device(loader(tmp_path, made, pin_memory=True).epoch(0), device):
        assert batch.images.device.type == "cuda"
        fed.append(Batch(batch.images.clone(), batch.labels.clone(), batch.samples.clone()))
    images = torch.cat([batch.images for batch in fed]).cpu()
    assert torch.equal(images, torch.cat([batch.images for batch in plain]))


@pytest.mark.gpu
def test_the_host_is_only_some_batches_ahead_of_a_gpu(tmp_path: Path) -> None:
    """Each takes memory there until its step is over, and no step waits for the GPU."""
    ends: list[torch.cuda.Event] = []
    batches = loader(tmp_path, sample_shards.make([40] * 2), pin_memory=True)
    for _ in to_device(batches.epoch(0), torch.device("cuda")):
        assert all(end.query() for end in ends[:-_AHEAD])
        torch.cuda._sleep(20_000_000)
        ends.append(torch.cuda.current_stream().record_event())
    assert len(ends) == 20


@pytest.mark.gpu
def test_nvjpeg_decodes_as_libjpeg_without_smoothed_chroma(tmp_path: Path) -> None:
    batches = list(loader(tmp_path).epoch_encoded(0))
    for encoded, batch in zip(batches, to_device(batches, torch.device("cuda")), strict=True):
        plain = [simplejpeg.decode_jpeg(jpeg.numpy().tobytes(), fastupsample=True) for jpeg in encoded.jpegs]
        assert torch.equal(batch.images.cpu(), torch.from_numpy(np.stack(plain)))
        assert batch.labels.tolist() == [sample % CLASSES for sample in batch.samples.tolist()]
