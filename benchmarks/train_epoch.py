"""Images per second of whole training: loader, copies and steps, from 256-pixel JPEGs on disk.

    python -m benchmarks.train_epoch                # all cores, batch 128 on a CPU and 256 on a GPU, bfloat16

Ours is the shards through `Loader`, `to_device` and `Trainer.step`; the peer is what people write: torchvision's ImageFolder,
DataLoader processes, and the network the obvious way under autocast. `nvjpeg` is ours, decoded on the GPU. They take turns;
a round is one epoch of the corpus. Of ours, the loader alone and the step alone are measured too: the slower one binds.
"""

import argparse
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from alexnet.loading.device import to_device
from alexnet.loading.loader import Batch, Loader
from alexnet.loading.sampler import BatchSampler
from alexnet.ops.malloc import disable_malloc_trim
from alexnet.shards.manifest import Shard
from benchmarks import corpus, timing
from benchmarks.input_peers import samples_of
from benchmarks.train_step import Obvious, as_the_train_stage, make_trainer

Epoch = Callable[[], object]


def _ours(folder: Path, shards: list[Shard], batch: int, device: torch.device, *, on_device: bool = False) -> dict[str, Epoch]:
    """An epoch of training; of the loader and the copies alone; of as many steps alone."""
    trainer = make_trainer("bf16", batch, device)
    loader = Loader(
        samples_of(folder, shards),
        BatchSampler(batch, seed=1, shuffle=True),
        workers=len(os.sched_getaffinity(0)),
        pin_memory=device.type == "cuda" and not on_device,
    )
    epochs = count()

    def batches() -> Iterator[Batch]:
        number = next(epochs)
        return to_device(loader.epoch_encoded(number) if on_device else loader.epoch(number), device)

    def train() -> None:
        with as_the_train_stage():
            for number, each in enumerate(batches()):
                loss, _ = trainer.step(each, 0, number)
            loss.item()

    def load() -> None:
        for each in batches():
            last = each.images
        last[-1, -1, -1, -1].item()

    (first, *_) = batches()

    def step() -> None:
        with as_the_train_stage():
            for number in range(loader.steps_per_epoch):
                loss, _ = trainer.step(first, 0, number)
            loss.item()

    return {"train": train, "load": load, "step": step}


def _peer(folder: Path, batch: int, device: torch.device) -> Epoch:
    from torchvision import datasets, transforms

    views = transforms.Compose(
        [
            transforms.RandomCrop(224),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    loader: torch.utils.data.DataLoader[tuple[Tensor, Tensor]] = torch.utils.data.DataLoader(
        datasets.ImageFolder(folder / "tree", views),
        batch_size=batch,
        shuffle=True,
        num_workers=len(os.sched_getaffinity(0)),
        pin_memory=device.type == "cuda",
        persistent_workers=True,
        drop_last=True,
    )
    network = Obvious().to(device).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)

    def train() -> None:
        for images, labels in loader:
            optimizer.zero_grad()
            with torch.autocast(device.type, torch.bfloat16):
                logits = network(images.to(device, non_blocking=True))
            loss = functional.cross_entropy(logits.float(), labels.to(device, non_blocking=True))
            loss.backward()
            optimizer.step()
        loss.item()

    return train


def main() -> None:
    """Measures and writes results/train_epoch.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, help="5120, or 512 on a CPU, where a round of them takes forty seconds")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--corpus", type=Path, help="where the corpus is, or is made; a temporary folder unless given")
    args = parser.parse_args()
    disable_malloc_trim()
    torch.backends.cudnn.benchmark = True
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    batch = args.batch or (256 if device.type == "cuda" else 128)
    on_disk = args.samples or (5120 if device.type == "cuda" else 512)
    with tempfile.TemporaryDirectory() as name:
        folder = args.corpus or Path(name)
        shards = corpus.make(None, on_disk, 4, folder)
        samples = sum(shard.samples for shard in shards) // batch * batch  # whole batches
        ours = _ours(folder, shards, batch, device)
        candidates = {"ours": ours["train"], "peer": _peer(folder, batch, device), "load": ours["load"], "step": ours["step"]}
        if device.type == "cuda":
            candidates["nvjpeg"] = _ours(folder, shards, batch, device, on_device=True)["train"]
        seconds = timing.interleave(candidates, args.rounds)
    result = {
        "batch": batch,
        "samples": samples,
        "images_per_second": {each: round(samples / statistics.median(times)) for each, times in seconds.items()},
        "faster_than_peer": round(timing.ratio(seconds["peer"], seconds["ours"]), 2),
        "share_of_step_alone": round(timing.ratio(seconds["step"], seconds["ours"]), 3),
        "share_of_loader_alone": round(timing.ratio(seconds["load"], seconds["ours"]), 3),
    }
    timing.write("train_epoch", result)


if __name__ == "__main__":
    main()
