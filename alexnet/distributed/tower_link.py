"""The link between two towers in two processes. All it ever does is swap a piece of memory with the other tower.

A sum over towers is the own addend plus the swapped one, so it is the same number on both sides and in one process.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from alexnet.distributed.errors import raises_lost


class TowerLink:
    """One tower a process, see Link.

    Args:
        group: the two processes of a tower pair, tower 0 first.
        tower: which of them this process holds.
        staged: copy through host memory, for a group that cannot reach the device's.
        on_swap: is told before every swap.
    """

    def __init__(
        self, group: dist.ProcessGroup, tower: int, *, staged: bool, on_swap: Callable[[], None] = lambda: None
    ) -> None:
        self.group, self.tower, self.staged, self.on_swap = group, tower, staged, on_swap
        self.bytes_sent = 0

    def gather(self, parts: list[Tensor]) -> list[Tensor]:
        """See Link."""
        return [_Gather.apply(parts[0], self)]

    def sum_scatter(self, parts: list[Tensor]) -> list[Tensor]:
        """See Link."""
        return [_SumScatter.apply(parts[0], self)]

    def sum(self, parts: list[Tensor]) -> list[Tensor]:
        """See Link."""
        return [_Sum.apply(parts[0], self)]

    def joined(self, x: Tensor) -> Tensor:
        """The outputs of both towers along dimension 1."""
        other = self.swap(x, _format(x))
        return torch.cat([x, other] if self.tower == 0 else [other, x], 1)

    def summed(self, x: Tensor) -> Tensor:
        """The own slice, along dimension 1, of the sum over both towers."""
        slices = x.chunk(2, 1)
        own: Tensor = slices[self.tower] + self.swap(slices[1 - self.tower], _format(x))
        return own

    def swap(self, x: Tensor, layout: torch.memory_format) -> Tensor:
        """What the other tower passed: of the same shape, in this memory format.

        Raises:
            Lost: the other process ended or did not answer in time.
        """
        if not x.numel():
            return x
        mine = x.contiguous(memory_format=layout)
        flat = mine.permute(0, 2, 3, 1) if layout is torch.channels_last else mine
        sent = flat.reshape(-1).view(torch.uint8)  # bytes: not every backend knows every dtype
        if self.staged:
            sent = sent.cpu()
        both = sent.new_empty((2, sent.numel()))
        self.on_swap()
        with raises_lost("swap between towers"):
            dist.all_gather_into_tensor(both.view(-1), sent, group=self.group)
        self.bytes_sent += sent.numel()
        other = both[1 - self.tower].to(x.device).view(x.dtype).view(flat.shape)
        return other.permute(0, 3, 1, 2) if layout is torch.channels_last else other


def _format(x: Tensor) -> torch.memory_format:
    channels_last = x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


class _Gather(torch.autograd.Function):
    """Joined; every tower's gradient is the sum of what both consumers say of it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, link: TowerLink) -> Tensor:
        ctx.link = link
        return link.joined(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.link.summed(grads[0]), None


class _SumScatter(torch.autograd.Function):
    """Own slice of the sum; its gradient is wanted by both towers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, link: TowerLink) -> Tensor:
        ctx.link = link
        return link.summed(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return ctx.link.joined(grads[0]), None


class _Sum(torch.autograd.Function):
    """The sum, for one and the same loss on both sides: the gradient is there already."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, link: TowerLink) -> Tensor:  # noqa: ARG004 - autograd's signature
        return x + link.swap(x, torch.contiguous_format)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:  # noqa: ARG004 - autograd's signature
        return grads[0], None
