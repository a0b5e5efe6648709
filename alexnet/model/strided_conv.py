"""A convolution with a stride as one without, for GPUs.

Images have 3 channels, a GPU's matrix units read 8 or more at a time: of conv1's work there most is on zeros. Stacked to
channels, blocks of stride x stride pixels have 48, and the kernel's 11x11 pixels are 3x3 blocks.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from alexnet.ops.compile import compile_on_gpu


def strided_conv(
    x: Float[Tensor, "n c h w"], weight: Float[Tensor, "k c size size"], bias: Float[Tensor, " k"], stride: int
) -> Float[Tensor, "n k height width"]:
    """conv2d(x, weight, bias, stride) within rounding; in the type of autocast where that is on."""
    blocks = -(-weight.shape[-1] // stride)
    height, width = ((length - weight.shape[-1]) // stride + blocks for length in x.shape[2:])  # of x, in blocks
    kind = x.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    stacked = compile_on_gpu(_stack_blocks, x.device)(x, height, width, stride, dtype)
    return functional.conv2d(stacked, _stack_blocks(weight, blocks, blocks, stride, weight.dtype), bias)


def _stack_blocks(x: Tensor, height: int, width: int, stride: int, dtype: torch.dtype) -> Tensor:
    """[n, c, h, w], cut or padded with zeros to height x width blocks, as [n, stride^2 c, height, width], channels last."""
    n, c, h, w = x.shape
    padded = functional.pad(x, (0, width * stride - w, 0, height * stride - h)).permute(0, 2, 3, 1)
    blocks = padded.reshape(n, height, stride, width, stride, c).permute(0, 1, 3, 2, 4, 5)
    return blocks.reshape(n, height, width, -1).to(dtype).permute(0, 3, 1, 2)
