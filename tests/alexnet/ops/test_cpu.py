"""The C++ kernels against the same formulas in torch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from alexnet.model.response_norm import _backward, _forward, local_response_norm
from alexnet.ops import cpu
from alexnet.ops.cpu import Norm
from alexnet.training.sgd import _plain

pytestmark = pytest.mark.skipif(cpu.library() is None, reason="no C++ compiler here")


def maps(seed: int, shape: tuple[int, ...], kind: torch.dtype) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)) * 30
    return drawn.to(kind).contiguous(memory_format=torch.channels_last)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    shape=st.tuples(st.integers(1, 4), st.sampled_from([2, 6, 10, 96, 130]), st.integers(1, 9), st.integers(1, 9)),
    size=st.sampled_from([1, 3, 5, 9]),
    beta=st.sampled_from([0.75, 0.5]),
    kind=st.sampled_from([torch.float32, torch.bfloat16]),
    threads=st.integers(1, 3),
)
def test_norms_are_those_of_torch(
    seed: int, shape: tuple[int, ...], size: int, beta: float, kind: torch.dtype, threads: int
) -> None:
    x, grad = maps(seed, shape, kind), maps(seed + 1, shape, kind)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for norm in (Norm("band", 2, size, 2e-3, beta, 2.0), Norm("box", 1, size, 2e-3, beta, 1.0)):
            close(cpu.response_norm(None, x, norm), _forward(x, norm))
            close(cpu.response_norm(grad, x, norm), _backward(grad, x, norm), grad)
    finally:
        torch.set_num_threads(before)


def close(found: Tensor, expected: Tensor, *terms: Tensor) -> None:
    """Equal up to rounding, of the expected values and of the terms that may cancel in them."""
    tolerance = 2**-7 if expected.dtype is torch.bfloat16 else 2e-6
    assert found.dtype is expected.dtype
    scale = max(float(tensor.float().abs().max()) for tensor in (expected, *terms))
    assert (found.float() - expected.float()).abs().max() <= tolerance * scale


@given(st.integers(1, 200_000))
@settings(max_examples=10, deadline=None)
def test_the_update_is_that_of_torch(count: int) -> None:
    generator = torch.Generator().manual_seed(count)
    w, v, grad = (torch.randn(count, generator=generator) for _ in range(3))
    w2, v2 = w.clone(), v.clone()
    _plain(w, v, grad, 0.9, 0.01, 0.0005)
    cpu.update(w2, v2, grad, 0.9, 0.01, 0.0005)
    assert torch.allclose(w, w2, rtol=1e-5, atol=1e-6)
    assert torch.allclose(v, v2, rtol=1e-5, atol=1e-6)


def test_no_images_are_no_images() -> None:
    for kind in (torch.float32, torch.bfloat16):
        x = maps(1, (0, 8, 5, 5), kind)
        assert cpu.response_norm(x, x, Norm("band", 2, 5, 2e-3, 0.75, 2.0)).shape == x.shape
        assert cpu.response_norm(None, x, Norm("box", 1, 5, 2e-3, 0.75, 1.0)).shape == x.shape


def test_without_a_compiler_there_are_no_kernels_and_training_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu.library.cache_clear()
    monkeypatch.setattr("shutil.which", lambda name: None)
    try:
        assert cpu.library() is None
        x = maps(1, (2, 8, 5, 5), torch.float32)
        assert not cpu.can_norm(x, Norm("band", 2, 5, 1e-3, 0.75, 2.0))
        assert local_response_norm(x, towers=2, size=5, alpha=1e-3, beta=0.75, k=2.0).shape == x.shape
    finally:
        cpu.library.cache_clear()
