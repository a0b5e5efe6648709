"""Both response norms against torch's own, equation 1 by hand, and finite differences."""

import pytest
import torch
from torch.nn import functional

from alexnet.model.response_norm import _forward, local_response_norm, map_norm
from alexnet.ops.cpu import Norm


def test_local_response_norm_stops_at_the_tower_edge_and_divides_alpha_by_n_like_the_run() -> None:
    maps = torch.randn(2, 12, 5, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.cat([functional.local_response_norm(half, 5, 0.1, 0.75, 2.0) for half in maps.chunk(2, 1)], 1)
    found = local_response_norm(maps, towers=2, size=5, alpha=0.1 / 5, beta=0.75, k=2.0)
    assert torch.allclose(found, expected, rtol=0, atol=4e-15)


def test_local_response_norm_with_alpha_over_the_sum_is_equation_1() -> None:
    maps = torch.randn(1, 6, 1, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(4))
    found = local_response_norm(maps, towers=1, size=5, alpha=0.3, beta=0.75, k=2.0).flatten()
    a = maps.flatten().tolist()
    for i in range(6):
        squares = sum(a[j] ** 2 for j in range(max(0, i - 2), min(5, i + 2) + 1))
        assert found[i].item() == pytest.approx(a[i] / (2 + 0.3 * squares) ** 0.75, rel=1e-14)


@pytest.mark.parametrize("beta", [0.75, 0.5])
def test_the_gradients_of_both_norms_are_those_of_finite_differences(beta: float) -> None:
    maps = torch.randn(2, 6, 3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: local_response_norm(x, towers=2, size=3, alpha=0.2, beta=beta, k=2.0), (maps,))
    assert torch.autograd.gradcheck(lambda x: map_norm(x, size=3, alpha=0.2, beta=beta, k=1.0), (maps,))


def test_bfloat16_maps_are_normed_in_float32() -> None:
    maps = (torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(3)) * 30).bfloat16()
    found = local_response_norm(maps, towers=2, size=5, alpha=2e-5, beta=0.75, k=2.0)
    exact = local_response_norm(maps.float(), towers=2, size=5, alpha=2e-5, beta=0.75, k=2.0)
    assert found.dtype is torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


def test_torchs_own_norm_does_not_lose_digits_to_autocast() -> None:
    maps = torch.randn(2, 8, 6, 6, generator=torch.Generator().manual_seed(3)) * 30
    exact = _forward(maps, Norm("band", 2, 5, 2e-5, 0.75, 2.0))
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(_forward(maps, Norm("band", 2, 5, 2e-5, 0.75, 2.0)), exact)
