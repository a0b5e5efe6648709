"""The CPU kernels of cpu.cpp.

They compute in one pass over memory what model.response_norm and training.sgd write in torch for where there is no compiler.
"""

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

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


def can_norm(maps: Tensor, towers: int, size: int) -> bool:
    """Whether `lrn` and `map_norm` take these maps."""
    return (
        maps.device.type == "cpu"
        and maps.dtype in _KINDS
        and maps.is_contiguous(memory_format=torch.channels_last)
        and maps.shape[1] // towers <= _MAX_CHANNELS
        and size <= _MAX_SIZE
        and library() is not None
    )


def lrn(grad: Tensor | None, x: Tensor, towers: int, size: int, constants: tuple[float, float, float]) -> Tensor:
    """The local response norm of channels-last maps, or with a gradient its backward pass. constants: alpha, beta, k."""
    _, c, h, w = x.shape
    return _over_images("lrn", grad, x, lambda images: (images * h * w * towers, c // towers, size), constants)


def map_norm(grad: Tensor | None, x: Tensor, size: int, constants: tuple[float, float, float]) -> Tensor:
    """The norm over size x size pixels of channels-last maps, or its backward pass. constants: alpha, beta, k."""
    _, c, h, w = x.shape
    return _over_images("map_norm", grad, x, lambda images: (images, h, w, c, size), constants)


def _over_images(
    name: str,
    grad: Tensor | None,
    x: Tensor,
    sizes: Callable[[int], tuple[int, ...]],
    constants: tuple[float, ...],
) -> Tensor:
    """Calls a kernel on ranges of images, one a thread; the calls release the interpreter's lock."""
    function = getattr(library(), f"{name}_{_KINDS[x.dtype]}")
    if grad is not None:
        grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x)
    image_bytes = x.shape[1:].numel() * x.element_size()

    def part(first: int, last: int) -> None:
        pointers = [None if t is None else t.data_ptr() + first * image_bytes for t in (grad, x, out)]
        function(*pointers, *sizes(last - first), *constants)

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
    return ThreadPoolExecutor(count, thread_name_prefix="alexnet-native")


def _in_threads(part: Callable[[int, int], None], count: int, smallest: int = 1) -> None:
    """part(first, last) over ranges of 0..count-1, as many as torch uses threads."""
    ranges = max(1, min(torch.get_num_threads(), count // smallest))
    if ranges == 1:
        part(0, count)
        return
    edges = [count * i // ranges for i in range(ranges + 1)]
    list(_threads(ranges).map(part, edges[:-1], edges[1:]))
