"""Bytes and seconds per step of every form of training, against one device.

    python -m benchmarks.two_gpu                        # on a CPU: one thread per process, full width
    python -m benchmarks.two_gpu --batch 16 --rounds 3

Input is in memory. All setups run one step each, round by round, in processes of their own. On GPUs, processes take the GPUs
in turn (bfloat16, batch 128 and 1024); two processes on one GPU exchange through host memory. On a machine with other load,
CPU seconds are more reliable than seconds. Also measured: how long a checkpoint at full width pauses training, and how long
writing it takes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from alexnet.distributed.team import TOWERS_APART, Team
from alexnet.images.statistics import PixelStatistics
from alexnet.loading.loader import Batch
from alexnet.loading.sampler import BatchSampler
from alexnet.model.network import AlexNet, initial_weights
from alexnet.ops.malloc import disable_malloc_trim
from alexnet.randomness.tensors import random_integers
from alexnet.training.checkpoint import Checkpoints
from alexnet.training.schedule import Rates
from alexnet.training.trainer import Trainer, TrainingJob
from benchmarks import timing
from infra import ports
from pipelines.config import params
from pipelines.runtime import environment, launch

_SIDE_PX = 256


@dataclass(frozen=True)
class Setup:
    """One setup of processes. parts: of the network, in each process. threads: of each process, on a CPU."""

    name: str
    processes: int
    parts: int
    threads: int = 1


SETUPS = (
    Setup("one device", 1, 1),
    Setup("one device, two threads", 1, 1, 2),
    Setup("both towers in one process", 1, 2),
    Setup("a process a tower", 2, 1),
    Setup("two replicas of two towers", 4, 1),
)


class Runner:
    """The processes of one setup, which run a step or save a checkpoint on command."""

    def __init__(self, setup: Setup, batch: int, precision: str) -> None:
        self.setup = setup
        (port,) = ports.find_free(1)
        address = {
            "WORLD_SIZE": str(setup.processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ALEXNET_TIMEOUT": "600",
        }
        common = os.environ | address | {"OMP_NUM_THREADS": str(setup.threads), "LOCAL_WORLD_SIZE": str(setup.processes)}
        order = json.dumps({"setup": asdict(setup), "batch": batch, "precision": precision})
        self.ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.two_gpu", "--rank", order],
                env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(setup.processes)
        ]
        self._answer()

    def run(self, command: str) -> dict[str, Any]:
        """Rank 0's answer to a command, `step` or `save`, once all ranks have executed it."""
        for rank in self.ranks:
            assert rank.stdin is not None
            rank.stdin.write(command + "\n")
            rank.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        lines = []
        for rank in self.ranks:
            assert rank.stdout is not None
            lines.append(rank.stdout.readline())
        found: dict[str, Any] = json.loads(lines[0])
        return found

    def end(self) -> None:
        """Ends the processes."""
        for rank in self.ranks:
            assert rank.stdin is not None
            rank.stdin.close()
        for rank in self.ranks:
            rank.wait()


def serve(order: str) -> None:
    """Runs one process of a setup: reads commands from standard input and writes answers to standard output."""
    settings = json.loads(order)
    setup = Setup(**settings["setup"])
    with launch.join(towers=2) as placement:
        torch.set_num_threads(setup.threads)
        disable_malloc_trim()
        # With two GPUs, launch.join would place a single process on both.
        team = placement.team if setup.processes > 1 else Team(TOWERS_APART if setup.parts == 2 else None)
        device = placement.devices[0]
        trainer = _trainer(setup, team, device, settings["batch"], settings["precision"])
        sampler = BatchSampler(settings["batch"], seed=0, shuffle=False, replica=team.replica, replicas=team.replicas)
        share = torch.from_numpy(sampler.batches([settings["batch"]], 0)[0].copy())
        bytes_ = random_integers(1, share, torch.arange(_SIDE_PX * _SIDE_PX * 3), 256)
        images = bytes_.to(torch.uint8).view(-1, _SIDE_PX, _SIDE_PX, 3)
        batch = Batch(images.to(device), (share % 1000).to(device), share)
        print(json.dumps({"form": placement.why}), flush=True)
        for number, command in enumerate(sys.stdin):
            answer = _step(trainer, batch, number, device) if command.strip() == "step" else _save(trainer)
            print(json.dumps(answer), flush=True)


def _trainer(setup: Setup, team: Team, device: torch.device, batch: int, precision: str) -> Trainer:
    settings = params.load(preset="imagenet")
    recipe = replace(settings.train, batch_size=batch, precision=precision)  # type: ignore[arg-type]  # given below
    network = AlexNet(settings.model, tower_ranges=team.tower_ranges, link=team.link)
    if setup.parts == 2:
        gpus = [torch.device(name) for name in environment.devices()]
        network.to_devices([gpus[0], gpus[-1]])
    else:
        network.to(device).to(memory_format=torch.channels_last)
    network.load_full(initial_weights(settings.model, 1))
    pixels = PixelStatistics(
        mean_image=np.full((_SIDE_PX, _SIDE_PX, 3), 120.0, np.float32),
        channel_mean=np.full(3, 120.0),
        channel_std=np.full(3, 70.0),
        eigenvectors=np.eye(3),
        eigen_std=np.array([20.0, 37.0, 122.0]),
        images=1,
    )
    trainer = Trainer(TrainingJob(1, settings.model, recipe, "benchmark"), network, pixels, device, team)
    trainer.set_rates(Rates(1e-5, 1e-5, 1e-5))
    return trainer


def _step(trainer: Trainer, batch: Batch, number: int, device: torch.device) -> dict[str, Any]:
    began, worked = time.perf_counter(), time.process_time()
    trainer.step(batch, 0, number)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds, cpu = time.perf_counter() - began, time.process_time() - worked
    return {"seconds": seconds, "cpu_seconds": cpu, "bytes_per_sample": trainer.bytes_per_sample}


def _save(trainer: Trainer) -> dict[str, Any]:
    began = time.perf_counter()
    tensors = trainer.tensors()
    pause = time.perf_counter() - began
    if not trainer.team.is_rank0:
        return {}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        Checkpoints(Path(folder)).save(1, tensors, {})
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    return {"pause_seconds": pause, "write_seconds": time.perf_counter() - began - pause, "bytes": size}


def measure(batch: int, rounds: int, precision: str) -> dict[str, Any]:
    """Measures all setups at one batch size."""
    runners = {setup.name: Runner(setup, batch, precision) for setup in SETUPS}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in runners}

    def step(name: str) -> None:
        answers[name].append(runners[name].run("step"))

    timing.interleave({name: (lambda name=name: step(name)) for name in runners}, rounds)  # type: ignore[misc]  # bound now
    checkpoint = {
        name: {which: runners[name].run("save") for which in ("first", "second")}  # the second reuses the first one's memory
        for name in ("one device", "a process a tower")
    }
    for runner in runners.values():
        runner.end()
    seconds = {name: [answer["seconds"] for answer in given[1:]] for name, given in answers.items()}
    one = seconds["one device"]
    forms = {
        setup.name: {
            "processes": setup.processes,
            "threads_a_process": setup.threads,
            "seconds_a_step": round(statistics.median(seconds[setup.name]), 4),
            "cpu_seconds_a_step_and_process": round(statistics.median(a["cpu_seconds"] for a in answers[setup.name][1:]), 4),
            "images_per_second": round(batch / statistics.median(seconds[setup.name]), 2),
            "times_one_device": round(timing.ratio(one, seconds[setup.name]), 3),
            "bytes_per_sample_and_tower": answers[setup.name][-1]["bytes_per_sample"],
            "megabytes_a_step_and_tower": round(answers[setup.name][-1]["bytes_per_sample"] * batch / 1e6, 2),
        }
        for setup in SETUPS
    }
    return {"batch": batch, "precision": precision, "rounds": rounds, "forms": forms, "checkpoint": checkpoint}


def main() -> None:
    """Reads the arguments and measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, action="append", help="batch size; may be given several times")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--rank", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.rank:
        serve(args.rank)
        return
    gpu = torch.cuda.is_available()
    batches = args.batch or ([128, 1024] if gpu else [32])
    results = [measure(batch, args.rounds, "bf16" if gpu else "float32") for batch in batches]
    load = round(os.getloadavg()[0], 1)
    timing.write("two_gpu", {"devices": environment.devices(), "load_average_at_the_end": load, "results": results})


if __name__ == "__main__":
    main()
