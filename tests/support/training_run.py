"""A small training run in any form, for tests: in this process, or as one rank of several.

`python -m tests.support.training_run RUN FOLDER` executes one, where RUN is a Run as JSON: under torchrun, or by `start` below.
"""

import itertools
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from alexnet.config import build
from alexnet.distributed.team import TOWERS_APART, Team
from alexnet.images.statistics import PixelStatistics
from alexnet.loading.device import to_device
from alexnet.loading.loader import Batch
from alexnet.loading.sampler import BatchSampler, Order
from alexnet.model.network import AlexNet, full_shapes
from alexnet.randomness.tensors import random_integers
from alexnet.training.checkpoint import Checkpoints
from alexnet.training.loop import Callbacks, TrainingStopped, fit
from alexnet.training.schedule import Rate, Rates
from alexnet.training.trainer import Trainer, TrainingJob
from infra import ports
from pipelines.config import params
from pipelines.runtime import launch

SIDE_PX = 230
_received: list[int] = []  # signals


@dataclass(frozen=True)
class Run:
    """What to train, and which faults to inject.

    name: of its folder. form: in a single process, `one` part of both towers or two parts `apart`. resumes: name of a stopped
    run whose checkpoints this one starts from. slow_ms: a pause in every step, for tests that send signals.
    """

    name: str = "run"
    form: Literal["one", "apart"] = "one"
    resumes: str = ""
    devices: str = "cpu"  # of the ranks, in turn
    double: bool = True
    towers: int = 2
    kernels: tuple[int, ...] = (4, 8, 8, 8, 8)
    units: int = 16
    classes: int = 5
    batch_size: int = 4
    samples: int = 13  # the last batch of an epoch is one sample: with two replicas, one has none
    epochs: int = 2
    seed: int = 7
    steps: int = 0  # runs so many steps without `fit`, and saves the gradients of the first; 0: `fit`
    checkpoint_seconds: float = 0.0  # a checkpoint after every step
    stop_at: int = 0  # the step after which rank 0 asks to stop
    slow_ms: int = 0
    timeout_seconds: float = 20.0
    fail_rank: int = -1  # raises at step 3
    odd_rank: int = -1  # has another batch size
    data: str = "data"  # digest of what is trained on
    rank_without_files: int = -1  # does not reach the checkpoints, as on another machine
    same_samples: bool = False  # replicas get the same samples
    odd_samples_rank: int = -1  # gets the samples of another seed
    lr: float = 0.002
    late_lr: float = 0.002  # from the second epoch on


class RandomBatches:
    """Batches of random images, each a function of its index; see trainer.Batches."""

    def __init__(self, run: Run, samples: int, team: Team, *, shuffle: bool, batch_size: int) -> None:
        self.run, self.samples, self.team = run, samples, team
        self.shuffle, self.batch_size = shuffle, batch_size

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.samples // self.batch_size)

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        seed = self.run.seed + (self.team.rank == self.run.odd_samples_rank)
        replica, replicas = (0, 1) if self.run.same_samples else (self.team.replica, self.team.replicas)
        sampler = BatchSampler(self.batch_size, seed, self.shuffle, replica=replica, replicas=replicas)
        for step, part in enumerate(sampler.batches([self.samples], epoch, first_step), first_step):
            if self.shuffle:
                time.sleep(self.run.slow_ms / 1000)
                if self.team.rank == self.run.fail_rank and step == 3:
                    raise RuntimeError("a broken disk")
            yield batch(part, self.run.classes)


def batch(samples: Order, classes: int) -> Batch:
    """Images of noise around a gray level that depends on the class."""
    indices = torch.from_numpy(samples.copy())
    labels = indices % classes
    noise = random_integers(5, indices, torch.arange(SIDE_PX * SIDE_PX * 3), 64).view(len(indices), SIDE_PX, SIDE_PX, 3)
    return Batch((noise + 40 * labels.view(-1, 1, 1, 1)).to(torch.uint8), labels, indices)


def job(run: Run) -> TrainingJob:
    """The reference with few kernels, dropout and every augmentation on."""
    base = params.load(preset="imagenet")
    init = replace(base.model.init, std=0.05, middle_std=0.1)
    model = replace(base.model, towers=run.towers, classes=run.classes, kernels=run.kernels, units=run.units, init=init)
    augment = replace(base.train.augment, crop_offsets=SIDE_PX - 223, crop_run=1)
    schedule = replace(
        base.train.schedule,
        weights=(Rate(0, run.lr), Rate(1, run.late_lr)),
        biases=(Rate(0, 2 * run.lr),),
        conv1=(),
    )
    train = replace(
        base.train, batch_size=run.batch_size, epochs=run.epochs, augment=augment, schedule=schedule, precision="float32"
    )
    assert model.dropout > 0
    assert augment.crop == "random"
    assert augment.flip
    assert augment.color_noise.std > 0
    assert augment.color_noise.end_epoch is None or augment.color_noise.end_epoch >= run.epochs
    return TrainingJob(run.seed, model, train, run.data)


def pixels() -> PixelStatistics:
    """Pixel statistics that change every image."""
    mean = np.full((SIDE_PX, SIDE_PX, 3), 110, np.float32)
    vectors = np.linalg.qr(np.arange(9.0).reshape(3, 3) + np.eye(3))[0]
    ones = np.ones(3)
    return PixelStatistics(mean, ones * 110, ones * 60, vectors, ones * 30, 28)


def trainer(run: Run, team: Team) -> Trainer:
    """A trainer for the towers that this team holds."""
    config = job(run)
    names = run.devices.split(",")
    device = torch.device(names[team.rank % len(names)])
    if run.odd_rank == team.rank:
        config = replace(config, train=replace(config.train, batch_size=run.batch_size + 1))
    network = AlexNet(config.model, tower_ranges=team.tower_ranges, link=team.link).to(memory_format=torch.channels_last)
    return Trainer(config, (network.double() if run.double else network).to(device), pixels(), device, team)


def execute(run: Run, folder: Path, team: Team) -> bool:
    """Trains and writes results to the folder: `pieces-RANK` of bare steps, or `weights` and `history-RANK` of `fit`.

    Returns whether it stopped before its end.
    """
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    if run.resumes:
        team.broadcast_from_rank0(lambda: _copy_checkpoints(folder.parent / run.resumes, folder))
    (folder / f"pid-{team.rank}").write_text(str(os.getpid()))
    runner = trainer(run, team)
    train = RandomBatches(run, run.samples, team, shuffle=True, batch_size=runner.job.train.batch_size)
    if run.steps:
        _bare_steps(run, folder, team, runner, train)
        return False
    val = RandomBatches(run, 5, team, shuffle=False, batch_size=4)
    checkpoints = Checkpoints(folder / ("elsewhere" if run.rank_without_files == team.rank else "checkpoints"))
    seen = [0]

    def stop() -> bool:
        return bool(_received) or (team.is_rank0 and 0 < run.stop_at <= seen[0])

    def on_step(progress: Any) -> None:
        seen[0] = progress.epoch * progress.steps_per_epoch + progress.step
        append(folder / "steps", f"{team.rank} {seen[0]}")

    def note(text: str) -> None:
        if team.is_rank0:
            append(folder / "notes", text)

    callbacks = Callbacks(on_step=on_step, on_note=note, should_stop=stop, checkpoint_seconds=run.checkpoint_seconds)
    with checkpoints.lock() if team.is_rank0 else nullcontext():
        try:
            history = fit(runner, train, val, checkpoints, callbacks)
        except TrainingStopped as stopped:
            print(stopped, flush=True)
            if team.is_rank0:
                (folder / "stopped").touch()
            return True
        full = runner.tensors()
        if team.is_rank0:
            save_file(full, folder / "weights.safetensors")
        (folder / f"history-{team.rank}.json").write_text(json.dumps([asdict(row) for row in history]))
        return False


def append(path: Path, line: str) -> None:
    """Adds a line to a file."""
    with path.open("a") as file:
        file.write(line + "\n")


def _copy_checkpoints(source: Path, folder: Path) -> None:
    deadline = time.monotonic() + 100
    while not (source / "stopped").exists():
        assert time.monotonic() < deadline, f"{source} has not stopped"
        time.sleep(0.05)
    shutil.copytree(source / "checkpoints", folder / "checkpoints")


def _bare_steps(run: Run, folder: Path, team: Team, runner: Trainer, train: RandomBatches) -> None:
    from alexnet.model.network import initial_weights

    runner.network.load_full(initial_weights(runner.job.model, run.seed))
    runner.set_rates(Rates(run.lr, 2 * run.lr, run.lr))
    kept: dict[str, Tensor] = {}
    losses: list[float] = []
    number = 0
    while number < run.steps:
        for given in to_device(train.epoch(number // train.steps_per_epoch), runner.device):
            loss, _ = runner.step(given, number // train.steps_per_epoch, number)
            losses.append(team.all_reduce_sum(loss[None]).item())
            if number == 0:
                parameters = enumerate(runner.network.parameter_slices())
                kept |= {f"grad/{i}": p.grad.clone() for i, (_, _, p) in parameters if p.grad is not None}
            number += 1
            if number == run.steps:
                break
    for i, (_, _, parameter) in enumerate(runner.network.parameter_slices()):
        kept[f"weight/{i}"] = parameter.detach().clone()
        kept[f"velocity/{i}"] = runner.optimizer.velocity(parameter).clone()
    kept["losses"] = torch.tensor(losses, dtype=torch.float64)
    kept["bytes"] = torch.tensor([runner.bytes_per_sample], dtype=torch.float64)
    save_file({name: tensor.contiguous() for name, tensor in kept.items()}, folder / f"pieces-{team.rank}.safetensors")


def joined(run: Run, folder: Path, kind: str, ranks: Mapping[int, Sequence[tuple[int, int]] | None]) -> dict[str, Tensor]:
    """The full tensors of a kind (`grad`, `weight` or `velocity`), joined from files of ranks that cover them."""
    model = job(run).model
    full = {name: torch.full(shape, torch.nan, dtype=torch.float64) for name, shape in full_shapes(model).items()}
    for rank, tower_ranges in ranks.items():
        pieces = AlexNet(model, tower_ranges=tower_ranges).parameter_slices()
        tensors = load_file(folder / f"pieces-{rank}.safetensors")
        for i, (name, where, _) in enumerate(pieces):
            full[name][where] = tensors[f"{kind}/{i}"].double()
    assert not any(tensor.isnan().any() for tensor in full.values())
    return full


def options(run: Run, folder: Path) -> list[str]:
    """Arguments of a Python process that executes a run."""
    return ["-m", "tests.support.training_run", json.dumps(asdict(run)), str(folder)]


# Children of a server that has imported torch already: a rank starts in milliseconds.
CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.support.training_run"])


class Rank:
    """A process that executes runs one after another."""

    def __init__(self, runs: Sequence[Run], folder: Path, environment: Mapping[str, str]) -> None:
        self._log = folder / f"log-{environment.get('RANK', 0)}-{next(_numbers)}"
        self.process = CONTEXT.Process(
            target=_child, args=(json.dumps([asdict(run) for run in runs]), folder, dict(environment), self._log)
        )
        with _environment(ENVIRONMENT):
            self.process.start()

    @property
    def output(self) -> str:
        """What it printed so far."""
        return self._log.read_text() if self._log.exists() else ""

    def kill(self, number: int = signal.SIGKILL) -> None:
        """Sends it a signal."""
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def end(self, seconds: float = 150) -> int | None:
        """Its exit status, negative for a signal. None if it does not end in time, and is killed."""
        self.process.join(seconds)
        status = self.process.exitcode
        if status is None:
            self.process.kill()
            self.process.join()
        return None if status is None else int(status)


ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TORCH_COMPILE_DISABLE": "1"}  # compiling takes longer than training these networks
_numbers = itertools.count()


@contextmanager
def _environment(change: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(change)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def start(runs: Sequence[Run], folder: Path, size: int = 1) -> list[Rank]:
    """Starts that many ranks without a launcher; a single one trains in one process."""
    folder.mkdir(parents=True, exist_ok=True)
    if size == 1:
        return [Rank(runs, folder, {})]
    (port,) = ports.find_free(1)
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    return [Rank(runs, folder, address | {"RANK": str(rank), "LOCAL_RANK": str(rank)}) for rank in range(size)]


def finish(ranks: Sequence[Rank], status: int = 0) -> None:
    """Waits for the ranks, as long as a loaded machine may need for eight of them, and checks their exit status."""
    ends = [rank.end(600) for rank in ranks]
    assert ends == [status] * len(ranks), "\n".join(rank.output for rank in ranks)


def _child(runs: str, folder: Path, environment: dict[str, str], log: Path) -> None:
    os.environ.update(environment)
    with log.open("w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    main([build(Run, run, "run") for run in json.loads(runs)], folder)


def main(runs: Sequence[Run], folder: Path) -> None:
    """Executes the runs, each in its own folder: as one rank, or in a single process where torch's variables name none."""
    signal.signal(signal.SIGTERM, lambda number, _: _received.append(number))
    os.environ |= {"ALEXNET_DEVICES": runs[0].devices, "ALEXNET_TIMEOUT": str(runs[0].timeout_seconds)}
    if launch.rendezvous() is None:
        stopped = [execute(run, folder / run.name, Team(TOWERS_APART if run.form == "apart" else None)) for run in runs]
    else:
        with launch.join(runs[0].towers) as placement:
            stopped = [execute(run, folder / run.name, placement.team) for run in runs]
    if stopped[-1]:
        sys.exit(launch.STOPPED_STATUS)


if __name__ == "__main__":
    main([build(Run, json.loads(sys.argv[1]), "run")], Path(sys.argv[2]))
