"""The link between two towers in two processes. Every operation is one swap of equally large tensors with the other tower.

A sum over towers is this tower's addend plus the one received, so both processes, and a single one, get the same number.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from alexnet.distributed.errors import raises_lost


class TowerLink:
    """A Link for one tower per process.

    Args:
        group: the two processes of a tower pair, tower 0 first.
        tower: number of the tower that this process holds.
        staged: whether to copy through host memory, for a group that cannot reach the device's.
        exchange: context in which every swap runs, named by its argument; turns torch's errors into Lost.
    """

    def __init__(
        self,
        group: dist.ProcessGroup,
        tower: int,
        *,
        staged: bool,
        exchange: Callable[[str], AbstractContextManager[None]] = raises_lost,
    ) -> None:
        self.group, self.tower, self.staged, self.exchange = group, tower, staged, exchange
        self.bytes_sent = 0

    def gather(self, parts: list[Tensor]) -> list[Tensor]:
        """See Link. A tower's gradient is the sum of those of both towers, which both read the result."""
        return [_Linear.apply(parts[0], self._join, self._sum_slice)]

    def sum_scatter(self, parts: list[Tensor]) -> list[Tensor]:
        """See Link."""
        return [_Linear.apply(parts[0], self._sum_slice, self._join)]

    def sum(self, parts: list[Tensor]) -> list[Tensor]:
        """See Link. Both processes compute the same loss of the result, so each has its gradient already."""
        return [_Linear.apply(parts[0], lambda x: x + self.swap(x, torch.contiguous_format), lambda grad: grad)]

    def _join(self, x: Tensor) -> Tensor:
        other = self.swap(x, _format(x))
        return torch.cat([x, other] if self.tower == 0 else [other, x], 1)

    def _sum_slice(self, x: Tensor) -> Tensor:
        slices = x.chunk(2, 1)
        own: Tensor = slices[self.tower] + self.swap(slices[1 - self.tower], _format(x))
        return own

    def swap(self, x: Tensor, layout: torch.memory_format) -> Tensor:
        """The tensor that the other tower passed: of the same shape, in this memory format."""
        if not x.numel():
            return x
        mine = x.contiguous(memory_format=layout)
        flat = mine.permute(0, 2, 3, 1) if layout is torch.channels_last else mine
        sent = flat.reshape(-1).view(torch.uint8)  # bytes: not every backend knows every dtype
        if self.staged:
            sent = sent.cpu()
        both = sent.new_empty((2, sent.numel()))
        with self.exchange("swap between towers"):
            dist.all_gather_into_tensor(both.view(-1), sent, group=self.group)
        self.bytes_sent += sent.numel()
        other = both[1 - self.tower].to(x.device).view(x.dtype).view(flat.shape)
        return other.permute(0, 3, 1, 2) if layout is torch.channels_last else other


def _format(x: Tensor) -> torch.memory_format:
    channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


class _Linear(torch.autograd.Function):
    """A linear function of a tensor, with the function that its gradient is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, function: Callable[[Tensor], Tensor], gradient: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.gradient = gradient
        return function(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None]:
        return ctx.gradient(grads[0]), None, None
