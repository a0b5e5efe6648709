"""The update rule of section 5, as an optimizer."""

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alexnet import native


class PaperSgd(Optimizer):
    """v = momentum v - weight_decay lr w - lr grad; w += v.

    torch.optim.SGD keeps lr out of v: the two agree until lr drops, and not for some steps after.

    Args:
        groups: dicts of `params`, `lr` and `weight_decay`; `lr` may be changed between steps.
        momentum: the part of the last velocity that is kept.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], *, momentum: float) -> None:
        super().__init__(groups, {"momentum": momentum, "lr": 0.0, "weight_decay": 0.0})

    def velocity(self, parameter: nn.Parameter) -> Tensor:
        """v of a parameter; zeros before its first step."""
        state = self.state[parameter]
        if "velocity" not in state:
            state["velocity"] = torch.zeros_like(parameter)
        return state["velocity"]  # type: ignore[no-any-return]  # the state dict is untyped

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]  # no closure, no loss
        """Updates every parameter that has a gradient."""
        assert closure is None, "a closure has no use here"
        for group in self.param_groups:
            with_grad = [parameter for parameter in group["params"] if parameter.grad is not None]
            if not with_grad:
                continue
            velocities = [self.velocity(parameter) for parameter in with_grad]
            grads = [parameter.grad for parameter in with_grad]
            rates = group["momentum"], group["lr"], group["weight_decay"] * group["lr"]
            for w, v, grad in zip(with_grad, velocities, grads, strict=True):
                grad = grad.contiguous(memory_format=_layout(w))
                if native.can_update(w):
                    native.update(w, v, grad, *rates)
                else:
                    _update(w.device.type)(_flat(w), _flat(v), _flat(grad), torch.tensor(rates, dtype=w.dtype).to(w.device))


def _layout(tensor: Tensor) -> torch.memory_format:
    channels_last = tensor.dim() == 4 and tensor.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def _flat(tensor: Tensor) -> Tensor:
    """The dense tensor's memory as one dimension, in whatever order: the update is elementwise."""
    return tensor.detach().as_strided((tensor.numel(),), (1,))


def _plain(w: Tensor, v: Tensor, grad: Tensor, rates: Tensor) -> None:
    momentum, lr, decay = rates.unbind()
    v.mul_(momentum).sub_(decay * w).sub_(lr * grad)
    w.add_(v)


@cache
def _update(device: str) -> Callable[[Tensor, Tensor, Tensor, Tensor], None]:
    """One pass over memory on a GPU, where torch can compile it."""
    return torch.compile(_plain, dynamic=True) if device == "cuda" else _plain
