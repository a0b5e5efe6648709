"""Compiled functions, in a process of its own: the checks of shapes in the other tests cannot be compiled.

`python -m tests.support.compiled compiled` compares each function compiled and not compiled; `... cuda` compares training on a
GPU with training on a CPU.
"""

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.utils import counters

from alexnet.loading.augment import Augment
from alexnet.loading.loader import Batch
from alexnet.loading.sampler import BatchSampler
from alexnet.model.network import AlexNet, initial_weights
from alexnet.model.response_norm import _backward, _forward
from alexnet.ops.compile import compile_function
from alexnet.ops.cpu import Norm
from alexnet.randomness.keys import random_key
from alexnet.randomness.tensors import _mask, dropout_mask, mask_words
from alexnet.training.schedule import Rates
from alexnet.training.trainer import Trainer
from tests.support import training_run


def compare(function: Callable[..., Tensor], calls: list[tuple[Any, ...]]) -> None:
    """The function compiled and not compiled, on every list of arguments."""
    compiled = compile_function(function)
    assert compiled is not function, "no compiler"
    for arguments in calls:
        expected, found = function(*arguments), compiled(*arguments)
        assert found.dtype == expected.dtype, function
        assert found.stride() == expected.stride(), function
        close = torch.allclose(found.float(), expected.float(), rtol=0, atol=2e-6 * expected.float().abs().max().item())
        assert close, (function, arguments[1:])


def graphs() -> int:
    """How many graphs were compiled so far."""
    return int(counters["stats"]["unique_graphs"])


def check_masks() -> None:
    """Another key or other samples are other arguments of the same kernel."""
    before = graphs()
    cols = torch.arange(8, 24)
    calls = [(torch.tensor([key & 0xFFFFFFFF, key >> 32, *range(at, at + 5)]), cols, 2**31) for at, key in enumerate(KEYS)]
    compare(_mask, calls)
    assert graphs() == before + 1


KEYS = [random_key("mask", number) for number in range(3)]


def check_norms() -> None:
    """Both norms, both ways."""
    generator = torch.Generator().manual_seed(1)
    x, grad = ((torch.randn(3, 12, 7, 6, generator=generator) * 30).to(memory_format=torch.channels_last) for _ in range(2))
    before = graphs()
    for constants in (("band", 2, 5, 2e-3, 0.75, 2.0), ("box", 1, 5, 2e-3, 0.75, 1.0)):
        compare(_forward, [(x, Norm(*constants)), (x, Norm(*constants))])
        compare(_backward, [(grad, x, Norm(*constants)), (grad, x, Norm(*constants))])
    assert graphs() == before + 4  # equal constants are no reason to compile anew


def check_augment() -> None:
    """The kernel that crops, flips, subtracts the mean and adds color noise on a GPU."""
    images = torch.randint(0, 256, (3, 230, 230, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    augment = training_run.job(training_run.Run()).train.augment
    noisy = Augment(augment, torch.full((230, 230, 3), 110.5), torch.eye(3), torch.tensor([20.0, 37.0, 122.0]), seed=1)
    compare(noisy._crop_flip_subtract, [(images, noisy.words(torch.tensor([3, 141, 59]), epoch)) for epoch in (0, 1)])


def trainer(device: torch.device) -> Trainer:
    """A small network with every augmentation and dropout, in float64, where rounding hides no mistake."""
    job = training_run.job(training_run.Run())
    network = AlexNet(job.model).to(device, torch.float64).to(memory_format=torch.channels_last)
    network.load_full(initial_weights(job.model, 7))
    trainer = Trainer(job, network, training_run.pixels(), device)
    trainer.set_rates(Rates(0.002, 0.004, 0.002))
    return trainer


def check_cuda() -> None:
    """Augmentation, dropout masks, losses and weights of eight steps, as on the CPU.

    The GPU's steps are replayed from the fifth on: with the same bits as by a trainer that records none. But for the first two,
    which compile, and the fourth, which records, the host must not wait for the GPU.
    """
    torch.backends.cudnn.deterministic = True
    devices = [torch.device(name) for name in ("cpu", "cuda", "cuda")]
    trainers = [trainer(device) for device in devices]
    trainers[2]._graph = None
    order = BatchSampler(8, seed=1, shuffle=True).order([64], 0)
    batch = training_run.batch(order, trainers[0].job.model.classes)
    crops, gpu_crops = (each.augment(batch.images.to(each.device), batch.samples, 0).cpu() for each in trainers[:2])
    assert torch.allclose(crops, gpu_crops, rtol=0, atol=1e-4)
    words = mask_words(KEYS[0], batch.samples)
    mask, gpu_mask = (dropout_mask(words, range(16, 32), 0.5, device).cpu() for device in devices[:2])
    assert torch.equal(mask, gpu_mask)
    for number in range(8):
        batch = training_run.batch(order[8 * number : 8 * number + 8], trainers[0].job.model.classes)
        losses = []
        for device, each in zip(devices, trainers, strict=True):
            there = Batch(batch.images.to(device), batch.labels.to(device), batch.samples)
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("default" if number in (0, 1, 3) else "error")
            loss, _ = each.step(there, 0, number)
            torch.cuda.set_sync_debug_mode("default")
            losses.append(loss.item())
        assert abs(losses[1] / losses[0] - 1) < 1e-6, (number, losses)
        assert losses[1] == losses[2], (number, losses)
    expected, found, unrecorded = (each.tensors() for each in trainers)
    for name, tensor in expected.items():
        assert (found[name] - tensor).abs().max() < 1e-5 * tensor.abs().max(), name
        assert torch.equal(found[name], unrecorded[name]), name


def main() -> None:
    """Runs the checks named by the first argument."""
    if sys.argv[1] == "cuda":
        check_cuda()
    else:
        check_masks()
        check_norms()
        check_augment()
    assert not counters["graph_break"], dict(counters["graph_break"])


if __name__ == "__main__":
    main()
