"""What the tests of LocalLink and TowerLink share."""

from collections.abc import Callable

import torch
from torch import Tensor

from alexnet.model.links import Link


def tower_outputs() -> list[Tensor]:
    """The outputs of two towers: three samples, four units each."""
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(2)]


def exchange(link: Link, parts: list[Tensor]) -> dict[str, Tensor]:
    """The result of every operation of a link, and the gradient of a weighted sum of it."""
    found = {}
    operations: dict[str, Callable[[list[Tensor]], list[Tensor]]] = {
        "gather": link.gather,
        "sum_scatter": link.sum_scatter,
        "sum": link.sum,
    }
    for name, operation in operations.items():
        leaves = [part.detach().clone().requires_grad_() for part in parts]
        for i, result in enumerate(operation(leaves)):
            found[f"{name}/{i}"] = result.detach().contiguous()
            weights = torch.arange(1, result.numel() + 1, dtype=torch.float64).view(result.shape)
            (result * weights).sum().backward(retain_graph=True)
        found |= {f"{name}/grad/{i}": leaf.grad.contiguous() for i, leaf in enumerate(leaves) if leaf.grad is not None}
    return found
