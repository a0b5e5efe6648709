"""The two response norms: over adjacent channels (3.3), and over a window of the same channel (the run's, not in the paper).

Both are x (k + alpha S(x^2))^-beta with a symmetric S: a band sum over channels, or a box sum over pixels. Stock
implementations cost more than the convolutions beside them, so both directions are written out: in C++ for a CPU
(native.cpp), compiled by torch for a GPU, and in plain torch for everything else. Inside, everything is float32 (or
float64): in bfloat16, k + alpha S has no digits left.
"""

import functools
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from alexnet.ops import cpu as native
from alexnet.ops.compile import compile_on_gpu

Maps = Float[Tensor, "n c h w"]
Spread = Literal["band", "box"]


def local_response_norm(maps: Maps, *, towers: int, size: int, alpha: float, beta: float, k: float) -> Maps:
    """Channels normalized by the squares of their neighbors in the same tower; alpha is what multiplies the sum."""
    return _Norm.apply(maps, "band", towers, size, alpha, beta, k)  # type: ignore[no-any-return]  # apply is untyped


def map_norm(maps: Maps, *, size: int, alpha: float, beta: float, k: float) -> Maps:
    """Pixels normalized by the squares in a size x size window of their own channel; alpha multiplies the sum."""
    return _Norm.apply(maps, "box", 1, size, alpha, beta, k)  # type: ignore[no-any-return]  # apply is untyped


class _Norm(torch.autograd.Function):
    """Keeps only its input for the backward pass: recomputing costs less than the memory traffic of keeping more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, spread: Spread, towers: int, size: int, alpha: float, beta: float, k: float) -> Tensor:
        ctx.save_for_backward(x)
        x = x.detach()  # so that a compiled norm is the same one in training and in validation
        ctx.constants = spread, towers, size, alpha, beta, k
        return _norm(None, x, *ctx.constants)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        return _norm(grads[0], x.detach(), *ctx.constants), None, None, None, None, None, None


def _norm(grad: Tensor | None, x: Maps, spread: Spread, towers: int, size: int, alpha: float, beta: float, k: float) -> Maps:
    """The norm of x, or with a gradient its backward pass, by the fastest way that is to be had here."""
    if native.can_norm(x, towers, size):
        if spread == "band":
            return native.lrn(grad, x, towers, size, alpha, beta, k)
        return native.map_norm(grad, x, size, alpha, beta, k)
    constants = spread, towers, size, alpha, beta, k
    if grad is None:
        return compile_on_gpu(_forward, x.device)(x, *constants)
    return compile_on_gpu(_backward, x.device)(grad, x, *constants)


def _forward(x: Maps, spread: Spread, towers: int, size: int, alpha: float, beta: float, k: float) -> Maps:
    wide = _wide(x)
    return (wide * _power(k + alpha * _sums(wide * wide, spread, towers, size), beta)).to(x.dtype)


def _backward(grad: Maps, x: Maps, spread: Spread, towers: int, size: int, alpha: float, beta: float, k: float) -> Maps:
    wide, wide_grad = _wide(x), _wide(grad)
    scale = k + alpha * _sums(wide * wide, spread, towers, size)
    direct = wide_grad * _power(scale, beta)
    cross = _sums(direct * wide / scale, spread, towers, size)
    return (direct - (2 * alpha * beta) * wide * cross).to(x.dtype)


def _power(scale: Tensor, beta: float) -> Tensor:
    """scale^-beta; two square roots instead of a logarithm for the paper's 0.75."""
    if beta != 0.75:
        return scale**-beta
    root = torch.rsqrt(scale)
    return root * torch.sqrt(root)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype is torch.float64 else x.float()


def _sums(squares: Maps, spread: Spread, towers: int, size: int) -> Maps:
    """Over a size x size window of pixels, or the `size` nearest channels of the tower; zeros outside."""
    if spread == "box":
        return functional.avg_pool2d(squares, size, 1, size // 2, divisor_override=1)
    n, c, h, w = squares.shape
    rows = squares.permute(0, 2, 3, 1).reshape(n * h * w, towers, c // towers)
    return _band(rows, size).reshape(n, h, w, c).permute(0, 3, 1, 2)


def _band(rows: Float[Tensor, "rows towers c"], size: int) -> Float[Tensor, "rows towers c"]:
    """Sums over the `size` nearest channels. Not a product with a band matrix: autocast would make that in bfloat16."""
    count = rows.shape[-1]
    padded = functional.pad(rows, (size // 2, size // 2))
    return functools.reduce(torch.add, [padded[..., i : i + count] for i in range(size)])
