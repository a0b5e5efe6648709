"""The two response norms: over adjacent channels (3.3), and over a window of the same channel (run #145's, not in the paper).

Both are x (k + alpha S(x^2))^-beta with a symmetric S: a sum over a band of channels, or over a box of pixels. Stock
implementations cost more than the convolutions beside them, so both directions are written out: in C++ for a CPU (cpu.cpp),
compiled by torch for a GPU, and in plain torch for everything else. Inside, everything is float32 (or float64): in bfloat16,
k + alpha S has no digits left.
"""

import functools
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from alexnet.ops import cpu
from alexnet.ops.compile import compile_on_gpu
from alexnet.ops.cpu import Norm

Maps = Float[Tensor, "n c h w"]


def local_response_norm(maps: Maps, *, towers: int, size: int, alpha: float, beta: float, k: float) -> Maps:
    """Channels normalized by the squares of the `size` nearest channels of their tower; alpha multiplies the sum."""
    return _Function.apply(maps, Norm("band", towers, size, alpha, beta, k))  # type: ignore[no-any-return]  # apply is untyped


def map_norm(maps: Maps, *, size: int, alpha: float, beta: float, k: float) -> Maps:
    """Pixels normalized by the squares in a size x size window of their own channel; alpha multiplies the sum."""
    return _Function.apply(maps, Norm("box", 1, size, alpha, beta, k))  # type: ignore[no-any-return]  # apply is untyped


class _Function(torch.autograd.Function):
    """Saves only its input for the backward pass: recomputing costs less than the memory traffic of saving more."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, norm: Norm) -> Tensor:
        ctx.save_for_backward(x)
        ctx.norm = norm
        x = x.detach()  # so that a compiled norm is the same one in training and in validation
        return cpu.response_norm(None, x, norm) if cpu.can_norm(x, norm) else compile_on_gpu(_forward, x.device)(x, norm)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, grad, norm = ctx.saved_tensors[0].detach(), grads[0], ctx.norm
        if cpu.can_norm(x, norm):
            return cpu.response_norm(grad, x, norm), None
        return compile_on_gpu(_backward, x.device)(grad, x, norm), None


def _forward(x: Maps, norm: Norm) -> Maps:
    wide = _wide(x)
    return (wide * _power(norm.k + norm.alpha * _sums(wide * wide, norm), norm.beta)).to(x.dtype)


def _backward(grad: Maps, x: Maps, norm: Norm) -> Maps:
    wide, wide_grad = _wide(x), _wide(grad)
    scale = norm.k + norm.alpha * _sums(wide * wide, norm)
    direct = wide_grad * _power(scale, norm.beta)
    cross = _sums(direct * wide / scale, norm)
    return (direct - (2 * norm.alpha * norm.beta) * wide * cross).to(x.dtype)


def _power(scale: Tensor, beta: float) -> Tensor:
    """scale^-beta; two square roots instead of a logarithm for the paper's 0.75."""
    if beta != 0.75:
        return scale**-beta
    root = torch.rsqrt(scale)
    return root * torch.sqrt(root)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype is torch.float64 else x.float()


def _sums(squares: Maps, norm: Norm) -> Maps:
    """S, with zeros outside of the maps and the tower."""
    if norm.over == "box":
        if squares.device.type != "cuda" and not torch.compiler.is_exporting():
            return functional.avg_pool2d(squares, norm.size, 1, norm.size // 2, divisor_override=1)
        # Of a pooling torch makes a kernel that is ten times slower than these sums, and an ONNX file loses its divisor.
        padded = functional.pad(squares, [norm.size // 2] * 4)
        across = functools.reduce(torch.add, [padded[..., i : i + squares.shape[3]] for i in range(norm.size)])
        return functools.reduce(torch.add, [across[:, :, i : i + squares.shape[2]] for i in range(norm.size)])
    n, c, h, w = squares.shape
    count = c // norm.towers
    rows = squares.permute(0, 2, 3, 1).reshape(n * h * w, norm.towers, count)
    padded = functional.pad(rows, (norm.size // 2, norm.size // 2))
    # Not a product with a band matrix: autocast would make that in bfloat16.
    sums = functools.reduce(torch.add, [padded[..., i : i + count] for i in range(norm.size)])
    return sums.reshape(n, h, w, c).permute(0, 3, 1, 2)
