"""The train stage: shards in, one trained network out."""

import argparse
import csv
import dataclasses
import hashlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from alexnet.config import to_json
from alexnet.errors import ParamsError
from alexnet.files.atomic import atomic_folder, atomic_write, atomic_write_bytes
from alexnet.images.statistics import PixelStatistics
from alexnet.inference.pretrained import Preprocessing, PretrainedConfig, save_pretrained
from alexnet.loading.loader import Encoded, Loader
from alexnet.loading.sampler import BatchSampler
from alexnet.model.network import AlexNet
from alexnet.ops.malloc import disable_malloc_trim
from alexnet.shards.manifest import Manifest, Split
from alexnet.training.checkpoint import Checkpoints
from alexnet.training.loop import Callbacks, EpochRow, Progress, TrainingStopped, fit
from alexnet.training.trainer import Trainer, TrainingJob
from pipelines.config import params
from pipelines.runtime import console, environment, launch, timings
from pipelines.storage.dataset import open_dataset

_CHECKPOINTS = environment.SHARED / "checkpoints"
_LOCK_SECONDS = 10.0  # ranks whose launcher was killed need a moment to see it and end
_GPU_FETCH_STEPS = 50  # between fetches of a GPU's losses: each waits for the device


def main() -> None:
    """Reads the arguments and trains."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--manifest", type=Path, required=True, help="the shards to train on")
    parser.add_argument("--pixels", type=Path, required=True, help="statistics of the training set's pixels")
    parser.add_argument("--model", type=Path, required=True, help="folder to make for the trained network")
    parser.add_argument("--history", type=Path, required=True, help="CSV file to make, a row an epoch")
    parser.add_argument("--training", type=Path, help="JSON file to make: the machine, processes and version of torch")
    parser.add_argument("--variant", help="a name under `variants` in params.yaml")
    args = parser.parse_args()
    if launch.starts_ranks():
        job, _, _ = check(args.manifest, args.pixels, args.variant)
        launch.launch("pipelines.train", sys.argv[1:], len(environment.devices()), _checkpoints(job).last)
        return
    train(args.manifest, args.pixels, args.model, args.history, args.variant, args.training)


def check(manifest_path: Path, pixels_path: Path, variant: str | None) -> tuple[TrainingJob, Manifest, PixelStatistics]:
    """Reads the parameters and inputs.

    Raises:
        ParamsError: a parameter does not fit the data.
        DataError: an input is missing or damaged.
    """
    settings = params.load(variant=variant)
    manifest, pixels = Manifest.read(manifest_path), PixelStatistics.read(pixels_path)
    if (classes := len(manifest.synsets)) != settings.model.classes:
        raise ParamsError(
            f"model.classes: is {settings.model.classes}, but the manifest has {classes} classes; set it to {classes}"
        )
    try:
        settings.train.augment.check_side(manifest.side_px, settings.model.input_px)
    except ValueError as error:
        raise ParamsError(f"train.augment.{error}") from None
    job = TrainingJob(settings.seed, settings.model, settings.train, _data_digest(manifest_path, pixels_path))
    return job, manifest, pixels


def train(
    manifest_path: Path,
    pixels_path: Path,
    model_path: Path,
    history_path: Path,
    variant: str | None = None,
    training_path: Path | None = None,
) -> None:
    """Trains one network, from its newest checkpoint if there is one, and writes it. Under torchrun, as one rank.

    Raises:
        SystemExit: a signal stopped it; a checkpoint is written.
    """
    job, manifest, pixels = check(manifest_path, pixels_path, variant)
    checkpoints = _checkpoints(job)
    with _stop_signals() as received, launch.join(job.model.towers) as placement, ExitStack() as stack:
        team = placement.team
        team.broadcast_from_rank0(lambda: stack.enter_context(checkpoints.lock(_LOCK_SECONDS)))
        torch.set_num_threads(placement.threads)
        torch.backends.cudnn.deterministic = True  # a run that was interrupted ends with the same bits
        disable_malloc_trim()
        trainer = _trainer(job, pixels, placement)
        loaders = [_loader(job, manifest, split, placement) for split in ("train", "val")]
        show = stack.enter_context(closing(_Show(trainer, loaders)))
        show.say(f"train: {placement.why}")
        callbacks = Callbacks(
            on_step=show.step if team.is_rank0 else lambda progress: None,
            on_epoch=show.epoch,
            on_note=show.say,
            should_stop=lambda: bool(received),
            checkpoint_seconds=environment.checkpoint_seconds(),
            fetch_loss_every=_GPU_FETCH_STEPS if trainer.device.type == "cuda" else 1,
        )
        train_batches, val_batches = map(Encoded, loaders) if job.train.decode == "device" else loaders
        try:
            history = fit(trainer, train_batches, val_batches, checkpoints, callbacks)
        except TrainingStopped as stop:
            show.say(f"train: {stop}")
            raise SystemExit(launch.STOPPED_STATUS) from None
        tensors = trainer.tensors()
        if team.is_rank0:
            weights = {name: tensor for name, tensor in tensors.items() if not name.startswith("velocity/")}
            used = params.load(variant=variant).shard.filter
            preprocessing = Preprocessing(manifest.side_px, used, manifest.exif_orientation, crop_px=job.model.input_px)
            with atomic_folder(model_path) as folder, atomic_write(history_path) as part:
                config = PretrainedConfig(job.model, manifest.synsets, preprocessing)
                save_pretrained(folder, config, weights, torch.from_numpy(pixels.mean_image))
                _write_history(history, part)
            if training_path:
                trained_on = environment.TrainedOn(environment.machine(), team.world_size, torch.__version__)
                atomic_write_bytes(training_path, to_json(trained_on))
            checkpoints.remove()


def _trainer(job: TrainingJob, pixels: PixelStatistics, placement: launch.Placement) -> Trainer:
    network = AlexNet(job.model, tower_ranges=placement.team.tower_ranges, link=placement.team.link)
    if len(placement.devices) > 1:
        network.to_devices(placement.devices)
    else:
        network.to(placement.devices[0]).to(memory_format=torch.channels_last)
    return Trainer(job, network, pixels, placement.devices[0], placement.team)


def _loader(job: TrainingJob, manifest: Manifest, split: Split, placement: launch.Placement) -> Loader:
    sampler = BatchSampler(
        job.train.batch_size,
        seed=job.seed,
        shuffle=split == "train" and job.train.order == "shuffled",
        window_shards=job.train.window_shards,
        replica=placement.team.replica,
        replicas=placement.team.replicas,
    )
    return Loader(
        open_dataset(manifest, split),
        sampler,
        workers=placement.threads,
        on_corrupt=job.train.on_corrupt,
        pin_memory=placement.devices[0].type == "cuda",
    )


def _data_digest(*paths: Path) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)).hexdigest()


def _checkpoints(job: TrainingJob) -> Checkpoints:
    """In a folder named after the job: another job never finds them."""
    fingerprint = hashlib.sha256(json.dumps(dataclasses.asdict(job), sort_keys=True).encode()).hexdigest()[:16]
    return Checkpoints(_CHECKPOINTS / fingerprint)


@contextmanager
def _stop_signals() -> Iterator[list[int]]:
    """Yields the list of the signals received that ask to stop: SIGTERM, SIGINT, and SIGHUP, of a terminal that was closed.

    A process that has not stopped in time, since it waits for a store or another rank, is ended; its last checkpoint stays.
    """
    received: list[int] = []
    end = threading.Timer(launch.STOP_SECONDS, lambda: os._exit(launch.STOPPED_STATUS))
    end.daemon = True

    def receive(number: int, _: object) -> None:
        if not received:
            end.start()
        received.append(number)

    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield received
    finally:
        end.cancel()
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_history(history: list[EpochRow], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in dataclasses.fields(EpochRow)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(dataclasses.asdict(row) for row in history)


class _Show:
    """Progress of training: a bar for the epoch on a terminal, otherwise a line now and then, and a line for every epoch."""

    def __init__(self, trainer: Trainer, loaders: Sequence[Loader]) -> None:
        self.epochs, self.trainer, self.loaders = trainer.job.train.epochs, trainer, loaders
        self.bar: tqdm[Any] | None = None
        self.began = self.last_line = time.monotonic()
        self.counted: int | None = None  # steps of all epochs at the last line
        self.done = 0  # steps of all epochs
        self.first: tuple[int, float] | None = None  # the same at the first step here, and when that was

    def close(self) -> None:
        """Removes the bar."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def step(self, progress: Progress) -> None:
        """After losses were fetched."""
        self.done = progress.epoch * progress.steps_per_epoch + progress.step
        self.first = self.first or (self.done, time.monotonic())
        epoch = f"epoch {progress.epoch + 1}/{self.epochs}"
        if console.is_terminal():
            if self.bar is None:
                self.bar = tqdm(total=progress.steps_per_epoch, desc=epoch, unit="step", leave=False)
            self.bar.update(progress.step - self.bar.n)
            self.bar.set_postfix(loss=f"{progress.loss:.4f}")
        elif time.monotonic() - self.last_line > console.LINE_SECONDS:
            at = f"train: {epoch}, step {progress.step}/{progress.steps_per_epoch}, loss {progress.loss:.4f}"
            self.say(at + self._pace(progress))

    def _pace(self, progress: Progress) -> str:
        """Images a second since the line before, and the time that is left at that; validation not counted."""
        now, done = time.monotonic(), self.done
        (before, counted), self.last_line, self.counted = (self.last_line, self.counted), now, done
        if counted is None:
            return ""
        seconds_a_step = (now - before) / max(1, done - counted)
        left = seconds_a_step * (self.epochs * progress.steps_per_epoch - done)
        return f", {self.trainer.job.train.batch_size / seconds_a_step:,.0f} images/s, {left / 60:,.0f} min left"

    def epoch(self, row: EpochRow) -> None:
        """After the validation of an epoch; on every rank."""
        self.close()
        sent = self.trainer.bytes_per_sample
        between = f", {sent:,.0f} bytes a sample between towers" if sent else ""
        self.say(
            f"train: epoch {row.epoch + 1}/{self.epochs}: loss {row.train_loss:.4f}, top-1 error {row.train_top1_error:.4f}; "
            f"validation: loss {row.val_loss:.4f}, top-1 error {row.val_top1_error:.4f}, lr {row.lr:g}, "
            f"{time.monotonic() - self.began:.0f} s{between}{self._skipped()}"
        )
        if self.first:
            steps, began = self.first
            timings.count_images((self.done - steps) * self.trainer.job.train.batch_size, time.monotonic() - began)

    def _skipped(self) -> str:
        """How many corrupt samples this epoch skipped over all replicas, and one reason."""
        if self.trainer.job.train.on_corrupt == "error":
            return ""
        reasons = [reason for loader in self.loaders for reason in loader.skipped.values()]
        for loader in self.loaders:
            loader.skipped.clear()
        count = int(self.trainer.team.all_reduce_sum(torch.tensor([float(len(reasons))])))
        such = "" if not reasons else f" ({'such as ' if count > 1 else ''}{reasons[0].rpartition('; ')[0]})"
        return f", {count:,} corrupt sample{'s' if count > 1 else ''} skipped{such}" if count else ""

    def say(self, line: str) -> None:
        """Prints a line, on rank 0."""
        if self.trainer.team.is_rank0:
            console.say(line)


if __name__ == "__main__":
    console.run("train", main)
