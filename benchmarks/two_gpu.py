"""Bytes and seconds a step of every form of training, and what more processes bring.

    python -m benchmarks.two_gpu                        # on a CPU: a thread a process, full width
    python -m benchmarks.two_gpu --batch 16 --rounds 3

Input is in memory. All forms run in turn, round by round, each in processes of its own that wait meanwhile. Where there are
GPUs, processes take them in turn (bfloat16, batch 128 and 1024); two processes on one GPU exchange through host memory.
On a machine that does other work too, CPU seconds say what a process has to do, seconds how long it took beside the others.
Also how long a checkpoint of the full width holds training up, and how long it then takes to write beside it.
"""

import argparse
import json
import os
import socket
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
from pipelines.config import params
from pipelines.runtime import environment, launch

_SIDE_PX = 256


@dataclass(frozen=True)
class Form:
    """One way to run it. parts: held by a single process. threads: of every process, on a CPU."""

    name: str
    processes: int
    parts: int
    threads: int = 1


FORMS = (
    Form("one device", 1, 1),
    Form("one device, two threads", 1, 1, 2),
    Form("both towers in one process", 1, 2),
    Form("a process a tower", 2, 1),
    Form("two replicas of two towers", 4, 1),
)


class Runner:
    """The processes of one form; they do a step, or save, when told to."""

    def __init__(self, form: Form, batch: int, precision: str) -> None:
        self.form = form
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        address = {
            "WORLD_SIZE": str(form.processes),
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": str(port),
            "ALEXNET_TIMEOUT": "600",
        }
        common = os.environ | address | {"OMP_NUM_THREADS": str(form.threads), "LOCAL_WORLD_SIZE": str(form.processes)}
        order = json.dumps({"form": asdict(form), "batch": batch, "precision": precision})
        self.ranks = [
            subprocess.Popen(
                [sys.executable, "-m", "benchmarks.two_gpu", "--rank", order],
                env=common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for rank in range(form.processes)
        ]
        self.heard()

    def tell(self, word: str) -> dict[str, Any]:
        """What rank 0 answers when all have done it."""
        for rank in self.ranks:
            assert rank.stdin is not None
            rank.stdin.write(word + "\n")
            rank.stdin.flush()
        return self.heard()

    def heard(self) -> dict[str, Any]:
        """Rank 0's line; every rank says one."""
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
    """One process of a form: does what its standard input says, and answers on standard output."""
    said = json.loads(order)
    form = Form(**said["form"])
    with launch.join(towers=2) as placement:
        torch.set_num_threads(form.threads)
        disable_malloc_trim()
        # By itself a process would take two GPUs where there are two.
        team = placement.team if form.processes > 1 else Team(TOWERS_APART if form.parts == 2 else None)
        device = placement.devices[0]
        trainer = _trainer(form, team, device, said["batch"], said["precision"])
        sampler = BatchSampler(said["batch"], seed=0, shuffle=False, replica=team.replica, replicas=team.replicas)
        share = torch.from_numpy(sampler.batches([said["batch"]], 0)[0].copy())
        images = random_integers(1, share, _SIDE_PX * _SIDE_PX * 3, 256).to(torch.uint8).view(-1, _SIDE_PX, _SIDE_PX, 3)
        batch = Batch(images.to(device), (share % 1000).to(device), share)
        print(json.dumps({"form": placement.why}), flush=True)
        for number, word in enumerate(sys.stdin):
            answer = _step(trainer, batch, number, device) if word.strip() == "step" else _save(trainer)
            print(json.dumps(answer), flush=True)


def _trainer(form: Form, team: Team, device: torch.device, batch: int, precision: str) -> Trainer:
    settings = params.load(preset="imagenet")
    recipe = replace(settings.train, batch_size=batch, precision=precision)  # type: ignore[arg-type]  # given below
    network = AlexNet(settings.model, tower_ranges=team.tower_ranges, link=team.link)
    if form.parts == 2:
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
    """All forms at one batch size."""
    runners = {form.name: Runner(form, batch, precision) for form in FORMS}
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in runners}

    def step(name: str) -> None:
        answers[name].append(runners[name].tell("step"))

    timing.interleave({name: (lambda name=name: step(name)) for name in runners}, rounds)  # type: ignore[misc]  # bound now
    checkpoint = {
        name: {which: runners[name].tell("save") for which in ("first", "second")}  # the second finds its memory there
        for name in ("one device", "a process a tower")
    }
    for runner in runners.values():
        runner.end()
    seconds = {name: [answer["seconds"] for answer in given[1:]] for name, given in answers.items()}
    one = seconds["one device"]
    forms = {
        form.name: {
            "processes": form.processes,
            "threads_a_process": form.threads,
            "seconds_a_step": round(statistics.median(seconds[form.name]), 4),
            "cpu_seconds_a_step_and_process": round(statistics.median(a["cpu_seconds"] for a in answers[form.name][1:]), 4),
            "images_per_second": round(batch / statistics.median(seconds[form.name]), 2),
            "times_one_device": round(timing.ratio(one, seconds[form.name]), 3),
            "bytes_per_sample_and_tower": answers[form.name][-1]["bytes_per_sample"],
            "megabytes_a_step_and_tower": round(answers[form.name][-1]["bytes_per_sample"] * batch / 1e6, 2),
        }
        for form in FORMS
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
