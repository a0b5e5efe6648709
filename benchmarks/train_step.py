"""Images per second of one training step: ours, the same network written the obvious way, torchvision's AlexNet.

    python -m benchmarks.train_step                 # on a CPU: batch 128
    python -m benchmarks.train_step --rounds 9

Input is in memory, as uint8 for ours and as floats for the peers. `bound` is our network without its norms. On a GPU the
same at batch 128, 256 and 1024, many steps a round, so that the host's own time is hidden as it is in training; there ours uses
cuDNN's deterministic algorithms, as the train stage does, and the peers the fastest by trial. Peak memory is that of two steps;
on a CPU, of a process of their own, torch itself included.
"""

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from alexnet.images.statistics import PixelStatistics
from alexnet.loading.loader import Batch
from alexnet.model.architecture import ModelConfig, layer_counts
from alexnet.model.network import AlexNet, initial_weights
from alexnet.ops.malloc import disable_malloc_trim
from alexnet.training.schedule import rates_at
from alexnet.training.trainer import Trainer, TrainingJob
from benchmarks import timing
from pipelines.config import params

Step = Callable[[], Tensor]  # the loss, not waited for
_CANDIDATES = ("ours", "obvious", "torchvision", "bound")
_STEPS_PER_ROUND = {"cpu": 1, "cuda": 30}


class Obvious(nn.Module):
    """The run's network as one would type it: grouped convolutions, stock norms, stock dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 96, 11, 4)
        self.conv2 = nn.Conv2d(96, 256, 5, padding=2, groups=2)
        self.conv3 = nn.Conv2d(256, 384, 3, padding=1)
        self.conv4 = nn.Conv2d(384, 384, 3, padding=1, groups=2)
        self.conv5 = nn.Conv2d(384, 256, 3, padding=1, groups=2)
        self.fc6, self.fc7, self.fc8 = nn.Linear(9216, 4096), nn.Linear(4096, 4096), nn.Linear(4096, 1000)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102  a module's
        x = functional.pad(x, (0, 3, 0, 3))
        x = functional.relu(functional.max_pool2d(_lrn(self.conv1(x)), 3, 2))
        x = _lrn(functional.relu(self.conv2(x)))
        x = x / (1 + 0.001 * functional.avg_pool2d(x.float() ** 2, 5, 1, 2)) ** 0.75
        x = functional.max_pool2d(x, 3, 2)
        x = functional.relu(self.conv3(x))
        x = functional.relu(self.conv4(x))
        x = functional.max_pool2d(functional.relu(self.conv5(x)), 3, 2).flatten(1)
        x = functional.dropout(functional.relu(self.fc6(x)), 0.5, self.training)
        x = functional.dropout(functional.relu(self.fc7(x)), 0.5, self.training)
        return self.fc8(x)  # type: ignore[no-any-return]  # Module.__call__


def _lrn(x: Tensor) -> Tensor:
    return torch.cat([functional.local_response_norm(half.float(), 5, 1e-4, 0.75, 2.0) for half in x.chunk(2, 1)], 1)


def make_trainer(precision: str, batch: int, device: torch.device, *, norms: bool = True) -> Trainer:
    """The run's network and recipe, ready for its first step."""
    settings = params.load(preset="imagenet")
    model: ModelConfig = settings.model
    if not norms:
        model = replace(model, lrn=replace(model.lrn, layers=()), map_norm=replace(model.map_norm, layers=()))
    train = replace(settings.train, precision=precision, batch_size=batch)  # type: ignore[arg-type]  # checked by the reader
    network = AlexNet(model).to(device).to(memory_format=torch.channels_last)
    network.load_full(initial_weights(model, 1))
    pixels = PixelStatistics(
        mean_image=np.full((256, 256, 3), 120.0, np.float32),
        channel_mean=np.full(3, 120.0),
        channel_std=np.full(3, 70.0),
        eigenvectors=np.eye(3),
        eigen_std=np.array([20.0, 37.0, 122.0]),
        images=1,
    )
    trainer = Trainer(TrainingJob(1, model, train, "benchmark"), network, pixels, device)
    trainer.set_rates(rates_at(train.schedule, 0, []))
    return trainer


def as_the_train_stage() -> AbstractContextManager[None]:
    """cuDNN's deterministic algorithms, not tried out: a run that was interrupted ends with the same bits."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True)


def _ours(precision: str, batch: int, device: torch.device, *, norms: bool = True) -> Step:
    trainer = make_trainer(precision, batch, device, norms=norms)
    images = torch.randint(0, 256, (batch, 256, 256, 3), dtype=torch.uint8, device=device)
    data = Batch(images, torch.arange(batch, device=device) % 1000, torch.arange(batch))
    steps = iter(range(1_000_000))

    def step() -> Tensor:
        with as_the_train_stage():
            return trainer.step(data, 0, next(steps))[0]

    return step


def _peer(network: nn.Module, precision: str, batch: int, device: torch.device) -> Step:
    network = network.to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    images = torch.randn(batch, 3, 224, 224, device=device)
    labels = torch.arange(batch, device=device) % 1000

    def step() -> Tensor:
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            loss = functional.cross_entropy(network(images).float(), labels)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step


def _round(step: Step, device: torch.device) -> Callable[[], None]:
    """A round of steps, until the device is done."""

    def steps() -> None:
        for _ in range(_STEPS_PER_ROUND[device.type]):
            loss = step()
        loss.item()

    return steps


def _peak_gflops(precision: str, device: torch.device) -> float:
    """The device's measured rate for square matrix products."""
    size, repeats = (8192, 20) if device.type == "cuda" else (2048, 10)
    kind = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device=device, dtype=kind) for _ in range(2))

    def product() -> None:
        c = a
        for _ in range(repeats):
            c = torch.mm(a, b)
        c[0, 0].item()

    seconds = min(timing.interleave({"mm": product}, rounds=3)["mm"])
    return 2 * size**3 * repeats / seconds / 1e9


def _gflop_per_image() -> float:
    """Forward and backward of the reference; conv1's input needs no gradient."""
    layers = layer_counts(params.load(preset="imagenet").model)
    return 2 * (3 * sum(layer.macs for layer in layers) - layers[0].macs) / 1e9


def _candidate(name: str, precision: str, batch: int, device: torch.device) -> Step:
    from torchvision.models import alexnet

    if name in ("ours", "bound"):
        return _ours(precision, batch, device, norms=name == "ours")
    return _peer(Obvious() if name == "obvious" else alexnet(), precision, batch, device)


def _peak_bytes(name: str, precision: str, batch: int, device: torch.device) -> int:
    """Of a candidate's first two steps: on a GPU of what torch allocated there, on a CPU of a process of its own."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        return _take_two_steps(name, precision, batch, device) - before
    command = [sys.executable, "-m", "benchmarks.train_step", "--memory", json.dumps([name, precision, batch])]
    return int(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _take_two_steps(name: str, precision: str, batch: int, device: torch.device) -> int:
    step = _candidate(name, precision, batch, device)
    for _ in range(2):
        step().item()
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status").read_text(
        encoding="utf-8"
    )  # getrusage would count what the parent held when it started this process
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def measure(precision: str, batch: int, device: torch.device, rounds: int) -> dict[str, Any]:
    """One precision, one batch size."""
    memory = {name: _peak_bytes(name, precision, batch, device) for name in _CANDIDATES}
    candidates = {name: _round(_candidate(name, precision, batch, device), device) for name in _CANDIDATES}
    seconds = timing.interleave(candidates, rounds)
    images = batch * _STEPS_PER_ROUND[device.type]
    rates = {name: round(images / statistics.median(times), 1) for name, times in seconds.items()}
    peak = _peak_gflops(precision, device)
    return {
        "precision": precision,
        "batch": batch,
        "images_per_second": rates,
        "faster_than_obvious": round(timing.ratio(seconds["obvious"], seconds["ours"]), 2),
        "faster_than_torchvision": round(timing.ratio(seconds["torchvision"], seconds["ours"]), 2),
        "share_of_the_same_net_without_norms": round(timing.ratio(seconds["bound"], seconds["ours"]), 3),
        "matrix_product_peak_gflops": round(peak),
        "share_of_peak": round(rates["ours"] * _gflop_per_image() / peak, 3),
        "peak_memory_bytes": memory,
    }


def main() -> None:
    """Measures and writes results/train_step.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    parser.add_argument("--precisions", default="float32,bf16")
    parser.add_argument("--batches", help="sizes, by commas: 128,256,1024 on a GPU and 128 on a CPU unless given")
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    args = parser.parse_args()
    disable_malloc_trim()  # for the peers as well
    torch.backends.cudnn.benchmark = True  # and this
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if args.memory:
        name, precision, batch = json.loads(args.memory)
        print(_take_two_steps(name, precision, batch, device))
        return
    batches = [int(size) for size in (args.batches or ("128,256,1024" if device.type == "cuda" else "128")).split(",")]
    rows = [measure(precision, batch, device, args.rounds) for precision in args.precisions.split(",") for batch in batches]
    obvious32 = {row["batch"]: row["images_per_second"]["obvious"] for row in rows if row["precision"] == "float32"}
    for row in rows:
        if row["batch"] in obvious32:
            row["faster_than_obvious_float32"] = round(row["images_per_second"]["ours"] / obvious32[row["batch"]], 2)
    timing.write("train_step", {"rows": rows})


if __name__ == "__main__":
    main()
