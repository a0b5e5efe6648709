"""The CPU kernels of native.cpp.

They compute what norms.py and sgd.py write in torch, in one pass over memory; without a compiler those are used.
"""

import ctypes
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor

from alexnet.ops import build_cpp as compiled

_SOURCE = Path(__file__).with_suffix(".cpp")
_KINDS = {torch.float32: "float", torch.bfloat16: "bf16"}
_MOST_CHANNELS, _MOST_SIZE = 1024, 17  # the buffers of native.cpp


@functools.cache
def library() -> ctypes.CDLL | None:
    """The compiled kernels, or None where they cannot be made."""
    native = compiled.load(_SOURCE)
    return native and _declare(native)


def _declare(native: ctypes.CDLL) -> ctypes.CDLL:
    pointers, norm = [ctypes.c_void_p] * 3, [ctypes.c_float] * 3
    for kind in _KINDS.values():
        getattr(native, f"lrn_{kind}").argtypes = [*pointers, *[ctypes.c_long] * 3, *norm]
        getattr(native, f"map_norm_{kind}").argtypes = [*pointers, *[ctypes.c_long] * 5, *norm]
    native.update_float.argtypes = [*pointers, ctypes.c_long, *norm]
    return native


def can_norm(maps: Tensor, towers: int, size: int) -> bool:
    """Whether `lrn` and `map_norm` take these maps."""
    return (
        maps.device.type == "cpu"
        and maps.dtype in _KINDS
        and maps.is_contiguous(memory_format=torch.channels_last)
        and maps.shape[1] // towers <= _MOST_CHANNELS
        and size <= _MOST_SIZE
        and library() is not None
    )


def lrn(grad: Tensor | None, x: Tensor, towers: int, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """norms' `band` norm of channels-last maps, or its backward pass when there is a gradient."""
    _, c, h, w = x.shape
    function = getattr(library(), f"lrn_{_KINDS[x.dtype]}")

    def share(images: int) -> tuple[int, ...]:
        return images * h * w * towers, c // towers, size

    return _over_images(function, grad, x, share, (alpha, beta, k))


def map_norm(grad: Tensor | None, x: Tensor, size: int, alpha: float, beta: float, k: float) -> Tensor:
    """norms' `box` norm of channels-last maps, or its backward pass when there is a gradient."""
    _, c, h, w = x.shape
    function = getattr(library(), f"map_norm_{_KINDS[x.dtype]}")
    return _over_images(function, grad, x, lambda images: (images, h, w, c, size), (alpha, beta, k))


def _over_images(
    function: Callable[..., None],
    grad: Tensor | None,
    x: Tensor,
    share: Callable[[int], tuple[int, ...]],
    constants: tuple[float, ...],
) -> Tensor:
    """Calls the function on ranges of images, one a thread; the calls release the interpreter's lock."""
    if grad is not None:
        grad = grad.to(x.dtype).contiguous(memory_format=torch.channels_last)
    out = torch.empty_like(x)
    image_bytes = x.shape[1:].numel() * x.element_size()

    def part(first: int, last: int) -> None:
        pointers = [None if t is None else t.data_ptr() + first * image_bytes for t in (grad, x, out)]
        function(*pointers, *share(last - first), *constants)

    _in_threads(part, len(x))
    return out


def can_update(parameter: Tensor) -> bool:
    """Whether `update` takes this parameter."""
    return parameter.device.type == "cpu" and parameter.dtype is torch.float32 and library() is not None


def update(w: Tensor, v: Tensor, grad: Tensor, momentum: float, lr: float, decay: float) -> None:
    """sgd's update in place, on tensors whose memory is dense and in the same order."""
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
