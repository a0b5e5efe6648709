"""The train stage: in one process and in two, on shards in a real store."""

import csv
import json
import os
import pty
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors.torch import load_file

from alexnet.errors import DataError, ParamsError
from alexnet.images.statistics import PixelStatistics, PixelSums
from alexnet.inference.pretrained import Preprocessing, load_pretrained
from pipelines.config import params
from pipelines.runtime import console, environment
from pipelines.runtime.environment import Store
from pipelines.runtime.launch import STOPPED_STATUS
from pipelines.storage.bucket import Bucket
from pipelines.train import check, train
from tests.support import sample_shards
from tests.support.sample_shards import CLASSES
from tests.support.trained_folder import SIDE_PX, TrainedFolder, make_trained_folder
from tests.support.training_run import ENVIRONMENT

REPO = Path(__file__).parents[2]
FILES = ("manifest.json", "pixels.npz", "model", "history.csv")


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    """As the shard stage leaves it; two epochs of three steps, the last of them with one image."""
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch)
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    change(place, train={"batch_size": 3, "epochs": 2, "schedule": schedule(0.001)})
    sums = PixelSums(SIDE_PX)
    for level in (0, 90, 255):
        sums.add(np.full((SIDE_PX, SIDE_PX, 3), level, np.uint8))
    PixelStatistics.from_sums(sums).write(place.path("pixels.npz"))
    place.path("history.csv").unlink()
    return place


def change(place: TrainedFolder, **sections: dict[str, object]) -> None:
    """Other parameters for the place."""
    yaml = YAML(typ="safe", pure=True)
    whole = yaml.load((place.root / "params.yaml").read_text())
    for section, fields in sections.items():
        whole[section] |= fields
    yaml.dump(whole, place.root / "params.yaml")


def schedule(lr: float) -> dict[str, object]:
    """One rate for all."""
    rate = [{"epoch": 0, "lr": lr}]
    return {"weights": rate, "biases": rate, "conv1": [], "stall": {"patience": 1, "factor": 0.1, "drops": 0}}


def run(place: TrainedFolder) -> None:
    """The stage, in this process."""
    manifest, pixels, model, history = map(place.path, FILES)
    train(manifest, pixels, model, history)


def run_program(place: TrainedFolder, **variables: str) -> "subprocess.CompletedProcess[str]":
    """The stage as DVC starts it."""
    arguments = [word for name in FILES for word in (f"--{name.partition('.')[0]}", str(place.path(name)))]
    return subprocess.run(
        [sys.executable, "-m", "pipelines.train", *arguments],
        env=os.environ | {"PYTHONPATH": str(REPO)} | variables,
        cwd=place.root,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


@pytest.mark.slow
def test_training_that_cannot_print_stops_with_a_checkpoint(place: TrainedFolder) -> None:
    """Its reader ends after a line, as `head -1` does, or its terminal is closed. Meanwhile a second one is refused."""
    change(place, train={"epochs": 1000})
    arguments = [word for name in FILES for word in (f"--{name.partition('.')[0]}", str(place.path(name)))]
    command = [sys.executable, "-m", "pipelines.train", *arguments]
    env = os.environ | {"PYTHONPATH": str(REPO)}
    with subprocess.Popen(command, cwd=place.root, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as pipe:
        assert pipe.stdout
        assert pipe.stderr
        assert pipe.stdout.readline().startswith("train: ")
        second = subprocess.run(command, cwd=place.root, env=env | {"ALEXNET_TIMEOUT": "10"}, capture_output=True, text=True)
        assert second.stderr.startswith(f"train: error: train: its outputs: process {pipe.pid} has held .local/locks/train-")
        pipe.stdout.close()
        assert pipe.wait(120) == STOPPED_STATUS
        assert pipe.stderr.read() == ""
    (checkpoint,) = (place.root / ".local" / "checkpoints").glob("*/step-*")
    assert json.loads((place.root / ".local/status/train.json").read_text())["retryable"]

    terminal, end = pty.openpty()
    hung = subprocess.Popen(command, cwd=place.root, env=env, stdout=end, stderr=end, start_new_session=True)
    os.close(end)
    while b"epoch" not in os.read(terminal, 1000):
        pass
    os.close(terminal)
    assert hung.wait(120) == STOPPED_STATUS
    assert list((place.root / ".local" / "checkpoints").glob("*/step-*")) > [checkpoint]


def weights(place: TrainedFolder) -> dict[str, torch.Tensor]:
    return load_file(place.path("model") / "model.safetensors")


def test_a_run_leaves_a_model_and_a_history_and_no_checkpoints(
    place: TrainedFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest, pixels, folder, history = map(place.path, FILES)
    train(manifest, pixels, folder, history, training_path=place.path("training.json"))
    model = load_pretrained(place.path("model"))
    assert model.network.layers[-1].outputs == 3
    on = json.loads(place.path("training.json").read_text())
    assert (on["machine"], on["processes"], on["torch"]) == (environment.machine(), 1, torch.__version__)
    assert model.config.preprocessing == Preprocessing(place.manifest.side_px, params.load().shard.filter)
    with place.path("history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["epoch"], row["step"]) for row in rows] == [("0", "3"), ("1", "6")]
    assert not list((place.root / ".local" / "checkpoints").iterdir())
    said = capsys.readouterr().out
    assert "train: one-device: one process on cpu" in said
    assert "train: epoch 2/2: loss" in said


def test_model_and_history_are_on_the_disk_before_the_checkpoints_are_removed(
    place: TrainedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a power cut would leave: whatever is not synced may be lost, whatever is removed is."""
    synced: list[str] = []
    fsync, checkpoints = os.fsync, place.root / ".local" / "checkpoints"

    def spy(descriptor: int) -> None:
        if list(checkpoints.glob("*/step-*")):
            path = Path(f"/proc/self/fd/{descriptor}").readlink()
            synced.append(f"{path.parent.name}/{path.name}" if path.is_file() else path.name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    monkeypatch.setenv("ALEXNET_CHECKPOINT_MINUTES", "0")  # a checkpoint after every step
    run(place)
    assert not list(checkpoints.iterdir())
    model = [path for path in synced if path.startswith(".model.")]
    assert {Path(path).name for path in model if "/" in path} == {"model.safetensors", "config.json"}
    assert any("history.csv" in path for path in synced)
    assert "artifacts" in synced[synced.index(model[-1]) :]  # the folder that both were renamed in


def test_the_same_run_again_makes_the_same_bytes(place: TrainedFolder) -> None:
    run(place)
    before = (place.path("model") / "model.safetensors").read_bytes(), place.path("history.csv").read_bytes()
    run(place)
    assert ((place.path("model") / "model.safetensors").read_bytes(), place.path("history.csv").read_bytes()) == before


def test_both_towers_in_one_process_train_the_same_model(place: TrainedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    run(place)
    one = weights(place)
    monkeypatch.setenv("ALEXNET_DEVICES", "cpu,cpu")
    monkeypatch.setenv("ALEXNET_PROCESSES", "1")
    run(place)
    for name, tensor in weights(place).items():
        assert torch.allclose(tensor, one[name], rtol=1e-4, atol=1e-6), name


def test_two_devices_train_the_same_model_in_two_processes(place: TrainedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit that of both towers in one process; that is the one-device model up to rounding, see above and test_towers."""
    monkeypatch.setenv("ALEXNET_DEVICES", "cpu,cpu")
    monkeypatch.setenv("ALEXNET_PROCESSES", "1")
    run(place)
    before = (place.path("model") / "model.safetensors").read_bytes(), place.path("history.csv").read_bytes()
    monkeypatch.delenv("ALEXNET_PROCESSES")
    (temporary := place.root / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    done = run_program(place)
    assert done.returncode == 0, done.stderr
    assert [path.name for path in temporary.iterdir() if path.name.startswith(("ranks-", "torchelastic"))] == []
    assert "train: process-a-tower: 2 processes, a tower each; they exchange outputs by gloo" in done.stdout
    assert done.stdout.count("train: epoch 2/2: loss") == 1
    assert "bytes a sample between towers" in done.stdout
    assert ((place.path("model") / "model.safetensors").read_bytes(), place.path("history.csv").read_bytes()) == before
    assert json.loads((place.root / ".local" / "status" / "train.json").read_text())["ok"]


def test_another_number_of_classes_is_refused(place: TrainedFolder) -> None:
    change(place, model={"classes": 4})
    with pytest.raises(ParamsError, match="model.classes: is 4, but the manifest has 3 classes; set it to 3"):
        run(place)


def corrupt(place: TrainedFolder) -> None:
    """Cuts an image of the training shard; the manifest describes the shard as it is: it passed sharding."""
    bodies = [sample_shards.jpeg(i, SIDE_PX) for i in range(7)]
    bodies[3] = bodies[3][: len(bodies[3]) // 2]
    body = sample_shards.tar(
        [m for i, b in enumerate(bodies) for m in ((f"k{i}.jpg", b), (f"k{i}.cls", b"%d" % (i % CLASSES)))]
    )
    shard = sample_shards.describe("train-000000.tar", body, [i % CLASSES for i in range(7)])
    store = environment.store()
    Bucket(store.bucket, store).put(f"{place.manifest.prefix}{shard.name}", body)
    manifest = replace(place.manifest, splits=place.manifest.splits | {"train": (shard,)})
    manifest.write(place.path("manifest.json"))


def test_a_corrupt_sample_stops_training_unless_it_is_to_be_skipped(
    place: TrainedFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    corrupt(place)
    with pytest.raises(DataError, match=r"train-000000\.tar: the image of key k3 .* leave it out \(train\.on_corrupt: skip\)"):
        run(place)
    change(place, train={"on_corrupt": "skip"})
    capsys.readouterr()
    run(place)
    epochs = [line for line in capsys.readouterr().out.splitlines() if line.startswith("train: epoch")]
    assert len(epochs) == 2
    for line in epochs:
        assert re.search(r", 1 corrupt sample skipped \(train-000000\.tar: the image of key k3 at byte \d+ .*[^;]\)$", line)
    with place.path("history.csv").open() as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["3", "6"]


@pytest.mark.slow
def test_replicas_count_a_skipped_sample_once(place: TrainedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    corrupt(place)
    change(place, model={"towers": 1}, train={"on_corrupt": "skip"})
    monkeypatch.setenv("ALEXNET_DEVICES", "cpu,cpu")
    done = run_program(place)
    assert done.returncode == 0, done.stderr
    assert "train: replicas: 2 processes" in done.stdout
    assert done.stdout.count(", 1 corrupt sample skipped") == 2


def test_decoding_on_the_device_trains_almost_the_same_model(place: TrainedFolder) -> None:
    """Another decoder rounds differently."""
    run(place)
    host = weights(place)
    change(place, train={"decode": "device"})
    run(place)
    for name, tensor in weights(place).items():
        assert torch.allclose(tensor, host[name], atol=1e-3), name


@pytest.mark.parametrize(
    ("side_px", "message"),
    [
        (255, "train.augment.crop_offsets: must be at most 32 for images of 255 pixels, got 33"),
        (223, "train.augment.crop: a crop is 224 x 224 pixels, the images have 223 a side"),
    ],
)
def test_shards_too_small_for_the_crops_are_refused_before_any_work(place: TrainedFolder, side_px: int, message: str) -> None:
    replace(place.manifest, side_px=side_px).write(place.path("manifest.json"))
    with pytest.raises(ParamsError, match=message):
        check(place.path("manifest.json"), place.path("pixels.npz"), None)


def test_of_many_ranks_one_says_how_the_stage_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for rank in ("1", "0"):
        assert not list(tmp_path.rglob("status/train.json"))
        monkeypatch.setenv("RANK", rank)
        console.run("train", lambda: None)
    assert len(list(tmp_path.rglob("status/train.json"))) == 1
