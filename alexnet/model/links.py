"""How towers exchange their outputs at the cross connections, whoever holds them.

A link takes and gives one tensor per part of the network held by this process; a part holds one tower or both. The
network is written once, over links; two-tower training differs from one-device training only in its link.
"""

from typing import Protocol, runtime_checkable

import torch
from torch import Tensor


@runtime_checkable
class Link(Protocol):
    """The movements. Each is linear, and its gradient is another of them. bytes_sent: by this process, both ways."""

    bytes_sent: int

    def gather(self, parts: list[Tensor]) -> list[Tensor]:
        """Every part gets the outputs of all towers, joined along dimension 1."""

    def sum_scatter(self, parts: list[Tensor]) -> list[Tensor]:
        """Every part gets its own slice, along dimension 1, of the sum over all towers."""

    def sum(self, parts: list[Tensor]) -> list[Tensor]:
        """Every part gets the sum over all towers; what follows must be computed alike by every process."""


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
            moved.register_hook(self._count)  # the way back
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
        return [_add([self._to(slice_[i], here.device) for slice_ in slices]) for i, here in enumerate(parts)]

    def sum(self, parts: list[Tensor]) -> list[Tensor]:
        """See Link; on the first part's device only, where the loss is."""
        return [_add([self._to(part, parts[0].device) for part in parts])]


def _add(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
