"""How towers exchange their outputs at the cross connections, in one process or between two.

A link takes and returns one tensor for every part of the network in this process; a part is one tower or both. The network
is written once, over links: training on two devices or in two processes differs from training on one only in its link.
"""

import functools
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Link(Protocol):
    """The exchanges. Each is linear, and its gradient is another of them. bytes_sent: by this process, forward and backward."""

    bytes_sent: int

    def gather(self, parts: list[Tensor]) -> list[Tensor]:
        """Every part gets the outputs of all towers, joined along dimension 1."""

    def sum_scatter(self, parts: list[Tensor]) -> list[Tensor]:
        """Every part gets its own slice, along dimension 1, of the sum over all towers."""

    def sum(self, parts: list[Tensor]) -> list[Tensor]:
        """Every part gets the sum over all towers; what follows must be the same computation in every process."""


class LocalLink:
    """All towers in this process: in one part, or in parts on devices of their own."""

    def __init__(self) -> None:
        self.bytes_sent = 0

    def _to(self, tensor: Tensor, device: torch.device) -> Tensor:
        if tensor.device == device:
            return tensor
        moved = tensor.to(device, non_blocking=True)
        self._count(moved)
        if moved.requires_grad:
            moved.register_hook(self._count)  # of the gradient
        return moved

    def _count(self, tensor: Tensor) -> None:
        self.bytes_sent += tensor.numel() * tensor.element_size()

    def gather(self, parts: list[Tensor]) -> list[Tensor]:
        """See Link."""
        if len(parts) == 1:
            return parts
        return [torch.cat([self._to(part, here.device) for part in parts], 1) for here in parts]

    def sum_scatter(self, parts: list[Tensor]) -> list[Tensor]:
        """See Link."""
        if len(parts) == 1:
            return parts
        slices = [part.chunk(len(parts), 1) for part in parts]
        return [_sum([self._to(slice_[i], here.device) for slice_ in slices]) for i, here in enumerate(parts)]

    def sum(self, parts: list[Tensor]) -> list[Tensor]:
        """See Link; on the first part's device only, where the loss is."""
        return [_sum([self._to(part, parts[0].device) for part in parts])]


def _sum(tensors: list[Tensor]) -> Tensor:
    return functools.reduce(torch.add, tensors)
