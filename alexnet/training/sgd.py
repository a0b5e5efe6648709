"""The update rule of section 5, as an optimizer."""

from collections.abc import Callable, Iterable
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from alexnet.ops import cpu

Tensors = list[Tensor]


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

    @overload
    def step(self, closure: None = None) -> None: ...

    @overload
    def step(self, closure: Callable[[], float]) -> float: ...

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Updates every parameter that has a gradient. At rate 0 nothing moves: a group stops dead, as in cuda-convnet."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            with_grad = [parameter for parameter in group["params"] if parameter.grad is not None]
            if group["lr"] == 0 or not with_grad:
                continue
            for device in {parameter.device for parameter in with_grad}:
                ws = [parameter for parameter in with_grad if parameter.device == device]
                grads = [_laid_out_as(w, w.grad) for w in ws]
                _update(ws, [self.velocity(w) for w in ws], grads, group["momentum"], group["lr"], group["weight_decay"])
        return loss


def _laid_out_as(w: Tensor, grad: Tensor | None) -> Tensor:
    assert grad is not None, "only who has one is asked"
    return grad if grad.stride() == w.stride() else torch.empty_like(w).copy_(grad)


def _update(ws: Tensors, vs: Tensors, grads: Tensors, momentum: float, lr: float, weight_decay: float) -> None:
    """One step of parameters on one device, each laid out in memory as its velocity and gradient are."""
    if ws[0].device.type == "cuda":
        _fused(ws, vs, grads, momentum, lr, weight_decay)
        return
    for w, v, grad in zip(ws, vs, grads, strict=True):
        update = cpu.update if cpu.can_update(w) else _plain
        update(w, v, grad, momentum, lr, weight_decay * lr)


def _plain(w: Tensor, v: Tensor, grad: Tensor, momentum: float, lr: float, decay: float) -> None:
    v.mul_(momentum).sub_(decay * w).sub_(lr * grad)
    w.add_(v)


def _fused(ws: Tensors, vs: Tensors, grads: Tensors, momentum: float, lr: float, weight_decay: float) -> None:
    """The kernel of torch's own SGD, all parameters in one pass.

    It does v = momentum v + (1 - dampening) (weight_decay w - grad), with `maximize`; w -= lr v. So the rate goes where
    dampening is, and the two signs that are left are turned.
    """
    torch._fused_sgd_(
        ws, grads, vs, momentum=momentum, dampening=1 - lr, weight_decay=-weight_decay, lr=-1.0,
        nesterov=False, maximize=True, is_first_step=False,
    )  # fmt: skip
