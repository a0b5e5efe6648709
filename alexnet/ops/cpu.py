"""The CPU kernels of cpu.cpp.

They compute in one pass over memory what model.response_norm and training.sgd write in torch for where there is no compiler.
"""

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from alexnet.ops import build_cpp

_SOURCE = Path(__file__).with_suffix(".cpp")
_KINDS = {torch.float32: "float", torch.bfloat16: "bf16"}
_MAX_CHANNELS, _MAX_SIZE = 1024, 17  # of the buffers in cpu.cpp


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be made."""
    kernels = build_cpp.load(_SOURCE)
    if kernels is not None:
        pointers, constants = [ctypes.c_void_p] * 3, [ctypes.c_float] * 3
        for kind in _KINDS.values():
            getattr(kernels, f"lrn_{kind}").argtypes = [*pointers, *[ctypes.c_long] * 3, *constants]
            getattr(kernels, f"map_norm_{kind}").argtypes = [*pointers, *[ctypes.c_long] * 5, *constants]
        kernels.update_float.argtypes = [*pointers, ctypes.c_long, *constants]
    return kernels


@dataclass(frozen=True)
class Norm:
    """A response norm x (k + alpha S(x^2))^-beta, whose S sums over neighbors.

    over: `band` is the `size` nearest channels of the same of `towers` groups, `box` the size x size pixels around, of the same
    channel.
    """

    over: Literal["band", "box"]
    towers: int
    size: int
    alpha: float
    beta: float
    k: float


def can_norm(x: Tensor, norm: Norm) -> bool:
    """Whether `response_norm` takes these maps."""
    return (
        x.device.type == "cpu"
        and x.dtype in _KINDS
        and x.is_contiguous(memory_format=torch.channels_last)
        and x.shape[1] // norm.towers <= _MAX_CHANNELS
        and norm.size <= _MAX_SIZE
        and not torch.compiler.is_exporting()  # an exported program holds torch's operations, and no memory of this process
        and library() is not None
    )


def response_norm(grad: Tensor | None, x: Tensor, norm: Norm) -> Tensor:
    """The norm of maps, or with a gradient its backward pass, one range of images a thread."""
    kernel = getattr(library(), f"{'lrn' if norm.over == 'band' else 'map_norm'}_{_KINDS[x.dtype]}")
    _, c, h, w = x.shape
    if grad is not None:
        grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x)
    image_bytes = x.shape[1:].numel() * x.element_size()

    def part(first: int, last: int) -> None:
        pointers = [None if t is None else t.data_ptr() + first * image_bytes for t in (grad, x, out)]
        count = last - first
        sizes = (count * h * w * norm.towers, c // norm.towers) if norm.over == "band" else (count, h, w, c)
        kernel(*pointers, *sizes, norm.size, norm.alpha, norm.beta, norm.k)

    _in_threads(part, len(x))
    return out


def can_update(parameter: Tensor) -> bool:
    """Whether `update` takes this parameter."""
    return parameter.device.type == "cpu" and parameter.dtype is torch.float32 and library() is not None


def update(w: Tensor, v: Tensor, grad: Tensor, momentum: float, lr: float, decay: float) -> None:
    """PaperSgd's update in place, on tensors whose memory is dense and in the same order. decay: weight decay times lr."""
    function = getattr(library(), "update_float")  # noqa: B009 - as an attribute it would be of None, too: callers asked can_update

    def part(first: int, last: int) -> None:
        function(*(t.data_ptr() + first * 4 for t in (w, v, grad)), last - first, momentum, lr, decay)

    _in_threads(part, w.numel(), smallest=1 << 16)


@functools.cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, thread_name_prefix="alexnet-cpu")


def _in_threads(part: Callable[[int, int], None], count: int, smallest: int = 1) -> None:
    """Calls part(first, last) on ranges of 0..count-1, as many as torch has threads; kernels release the GIL."""
    ranges = max(1, min(torch.get_num_threads(), count // smallest))
    if ranges == 1:
        part(0, count)
        return
    edges = [count * i // ranges for i in range(ranges + 1)]
    list(_threads(ranges).map(part, edges[:-1], edges[1:]))
