"""alexnet/model/strided_conv.py."""

import pytest
import torch
from torch.nn import functional

from alexnet.model.strided_conv import strided_conv


@pytest.mark.parametrize(
    ("side", "size", "stride"), [(227, 11, 4), (228, 11, 4), (31, 5, 2), (30, 4, 2), (13, 3, 3), (9, 3, 4)]
)
def test_it_is_the_convolution_and_has_its_gradients(side: int, size: int, stride: int) -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = ((2, 3, side, side + 1), (5, 3, size, size), (5,))
    x, weight, bias = (torch.randn(shape, dtype=torch.float64, generator=generator).requires_grad_() for shape in shapes)
    ours, plain = strided_conv(x, weight, bias, stride), functional.conv2d(x, weight, bias, stride)
    assert torch.allclose(ours, plain, rtol=0, atol=1e-11)
    grad = torch.randn(plain.shape, dtype=torch.float64, generator=generator)
    for found, expected in zip(*(torch.autograd.grad(y, (x, weight, bias), grad) for y in (ours, plain)), strict=True):
        assert torch.allclose(found, expected, rtol=0, atol=1e-10)


def test_under_autocast_it_computes_in_the_type_of_autocast() -> None:
    x, weight, bias = torch.randn(1, 3, 31, 31), torch.randn(4, 3, 5, 5), torch.randn(4)
    with torch.autocast("cpu", torch.bfloat16):
        assert strided_conv(x, weight, bias, 2).dtype is functional.conv2d(x, weight, bias, 2).dtype is torch.bfloat16
