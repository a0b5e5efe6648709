"""The update rule of section 5, as an optimizer."""

from collections.abc import Iterable
from typing import Any

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
    def step(self) -> None:  # type: ignore[override]  # torch's closure, which evaluates the loss again, has no use here
        """Updates every parameter that has a gradient. At rate 0 nothing moves, velocities included, as in cuda-convnet."""
        for group in self.param_groups:
            parameters = [each for each in group["params"] if each.grad is not None] if group["lr"] else []
            for device in {parameter.device for parameter in parameters}:
                ws = [parameter for parameter in parameters if parameter.device == device]
                grads = [w.grad if w.grad.stride() == w.stride() else torch.empty_like(w).copy_(w.grad) for w in ws]
                _update(ws, [self.velocity(w) for w in ws], grads, group["momentum"], group["lr"], group["weight_decay"])


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

    With `maximize` it does v = momentum v + (1 - dampening) (weight_decay w - grad); w -= lr v. So 1 - dampening is our rate,
    and weight decay and its rate are negative.
    """
    torch._fused_sgd_(
        ws, grads, vs, momentum=momentum, dampening=1 - lr, weight_decay=-weight_decay, lr=-1.0,
        nesterov=False, maximize=True, is_first_step=False,
    )  # fmt: skip
