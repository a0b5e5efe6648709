"""Ten-crop evaluation in images per second: ours, and the same network evaluated in the usual ways.

    python -m benchmarks.evaluate                # on a CPU: 32 images, 320 crops, a round
    python -m benchmarks.evaluate --rounds 9

All start from decoded images of 256 pixels and end with the number of images that are right by top 1 and top 5:
`obvious`: a forward pass a view, float32. `torchvision`: its reference loop (inference mode, a loss and two accuracies a batch,
fetched at once) over TenCrop's views in one pass. `timm`: its validation's fast setting, channels last and bfloat16 autocast.
The peers' network is `train_step.Obvious`. Ours in bf16 computes one of 32 images again in float32, as the
evaluate stage does with images whose best classes are close. How far it agrees is tested with `pipelines.evaluation`.
"""

import argparse
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms import v2

from alexnet.inference.pretrained import Preprocessing, Pretrained, PretrainedConfig
from alexnet.inference.ranking import CLOSE, from_tensors, gaps, summarize
from alexnet.model.network import AlexNet, initial_weights
from alexnet.ops.malloc import disable_malloc_trim
from alexnet.shards.manifest import Synset
from benchmarks import timing
from benchmarks.train_step import Obvious
from pipelines.config import params

_IMAGES = {"cpu": 8, "cuda": 128}
_BATCHES = {"cpu": 4, "cuda": 10}  # a round
_AGAIN = 32  # of so many images one is computed again


def full_width(device: torch.device) -> Pretrained:
    """The network of the preset imagenet with its start values, ready to judge."""
    model = params.load(preset="imagenet").model
    network = AlexNet(model).to(memory_format=torch.channels_last)
    network.load_full(initial_weights(model, 1))
    synsets = tuple(Synset(label, f"n{label:08}", str(label)) for label in range(model.classes))
    config = PretrainedConfig(model, synsets, Preprocessing(256, "triangle"))
    return Pretrained(network, config, torch.full((256, 256, 3), 120.0)).to(device)


@torch.inference_mode()
def _evaluate_ours(model: Pretrained, exact: Pretrained, images: Tensor, labels: Tensor, batches: int) -> None:
    parts, close = [], []
    for _ in range(batches):
        probabilities = model.by_crop(images, "ten").mean(0)
        parts.append(summarize(probabilities, labels))
        close.append(gaps(probabilities) < CLOSE)
    if model is not exact:
        torch.cat(close).nonzero()  # waits, as the stage does once; of this network, which has learned nothing, it may be any
        again = len(images) * batches // _AGAIN
        parts.append(summarize(exact.by_crop(images[:again], "ten").mean(0), labels[:again]))
    _, ranks = from_tensors(parts)
    ranks.credit(1).sum(), ranks.credit(5).sum()


@torch.inference_mode()
def _evaluate_obvious(network: Obvious, images: Tensor, labels: Tensor, batches: int) -> None:
    right = 0
    for _ in range(batches):
        floats = images.permute(0, 3, 1, 2).float() - 120
        probabilities = torch.stack([network(view).softmax(1) for view in v2.functional.ten_crop(floats, [224, 224])]).mean(0)
        right += int((probabilities.topk(5).indices == labels[:, None]).sum())


@torch.inference_mode()
def _evaluate_torchvision(network: Obvious, images: Tensor, labels: Tensor, batches: int) -> None:
    criterion = torch.nn.CrossEntropyLoss()
    for _ in range(batches):
        views = torch.stack(v2.functional.ten_crop(images.permute(0, 3, 1, 2).float() - 120, [224, 224]), 1)
        output = network(views.flatten(0, 1)).unflatten(0, (len(images), 10)).mean(1)
        loss = criterion(output, labels)
        correct = output.topk(5, 1).indices.t().eq(labels[None])
        loss.item(), correct[:1].sum().item(), correct.sum().item()


@torch.inference_mode()
def _evaluate_timm(network: Obvious, images: Tensor, labels: Tensor, batches: int) -> None:
    for _ in range(batches):
        views = torch.stack(v2.functional.ten_crop(images.permute(0, 3, 1, 2).float() - 120, [224, 224]), 1)
        with torch.autocast(images.device.type, torch.bfloat16):
            output = network(views.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        output = output.float().unflatten(0, (len(images), 10)).mean(1)
        loss = functional.cross_entropy(output, labels)
        correct = output.topk(5, 1).indices.t().eq(labels[None])
        loss.item(), correct[:1].sum().item(), correct.sum().item()


def measure(rounds: int, device: torch.device) -> dict[str, Any]:
    """All candidates, interleaved."""
    count, batches = _IMAGES[device.type], _BATCHES[device.type]
    images = torch.randint(0, 256, (count, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    images, labels = images.to(device), torch.arange(count, device=device)
    obvious, last = Obvious().eval().to(device), Obvious().eval().to(device).to(memory_format=torch.channels_last)
    exact = full_width(device)
    fast = exact.at("bf16")
    candidates: dict[str, Callable[[], object]] = {
        "ours, float32": lambda: _evaluate_ours(exact, exact, images, labels, batches),
        "ours, bf16": lambda: _evaluate_ours(fast, exact, images, labels, batches),
        "obvious": lambda: _evaluate_obvious(obvious, images, labels, batches),
        "torchvision": lambda: _evaluate_torchvision(obvious, images, labels, batches),
        "timm": lambda: _evaluate_timm(last, images, labels, batches),
    }
    seconds = timing.interleave(candidates, rounds)
    return {
        "images_per_second": {name: round(count * batches / statistics.median(times), 2) for name, times in seconds.items()},
        "faster_than": {
            peer: {ours: round(timing.ratio(seconds[peer], seconds[ours]), 2) for ours in ("ours, float32", "ours, bf16")}
            for peer in ("obvious", "torchvision", "timm")
        },
    }


def main() -> None:
    """Measures and writes results/evaluate.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="interleaved rounds")
    args = parser.parse_args()
    disable_malloc_trim()  # for the peers as well
    torch.backends.cudnn.benchmark = True  # and this
    timing.write("evaluate", measure(args.rounds, torch.device("cuda" if torch.cuda.is_available() else "cpu")))


if __name__ == "__main__":
    main()
