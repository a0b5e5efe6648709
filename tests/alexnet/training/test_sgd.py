"""The update rule by hand."""

import pytest
import torch
from torch import nn

from alexnet.training.sgd import PaperSgd, _fused, _plain


def test_the_velocity_holds_the_learning_rate_also_through_a_drop() -> None:
    """Section 5: v = 0.9 v - 0.0005 lr w - lr grad; w += v."""
    parameter = nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    optimizer = PaperSgd([{"params": [parameter], "lr": 0.1, "weight_decay": 0.0005}], momentum=0.9)
    w, v = [1.0, -2.0], [0.0, 0.0]
    for step in range(30):
        lr = 0.1 if step < 10 else 0.01
        optimizer.param_groups[0]["lr"] = lr
        grads = [3 * w[0] - 0.5, 0.25 * w[1]]
        parameter.grad = torch.tensor(grads, dtype=torch.float64)
        optimizer.step()
        for i in range(2):
            v[i] = 0.9 * v[i] - 0.0005 * lr * w[i] - lr * grads[i]
            w[i] += v[i]
        assert parameter.tolist() == pytest.approx(w, rel=1e-13)


def test_torchs_own_sgd_parts_from_the_paper_at_a_drop() -> None:
    ours, theirs = (nn.Parameter(torch.ones(1, dtype=torch.float64)) for _ in range(2))
    paper = PaperSgd([{"params": [ours], "lr": 0.1, "weight_decay": 0.0}], momentum=0.9)
    stock = torch.optim.SGD([theirs], lr=0.1, momentum=0.9)
    gaps = []
    for step in range(20):
        for optimizer, parameter in ((paper, ours), (stock, theirs)):
            optimizer.param_groups[0]["lr"] = 0.1 if step < 10 else 0.01
            parameter.grad = torch.ones(1, dtype=torch.float64)
            optimizer.step()
        gaps.append(abs(ours.item() - theirs.item()))
    assert max(gaps[:10]) < 1e-6
    assert gaps[10] > 0.4


def test_a_convolutions_weights_may_lie_channels_last_and_their_gradients_otherwise() -> None:
    plain = nn.Parameter(torch.arange(48.0).reshape(2, 3, 2, 4))
    last = nn.Parameter(plain.detach().clone().contiguous(memory_format=torch.channels_last))
    grad = torch.randn(2, 3, 2, 4, generator=torch.Generator().manual_seed(1))
    for parameter in (plain, last):
        optimizer = PaperSgd([{"params": [parameter], "lr": 0.1, "weight_decay": 0.01}], momentum=0.9)
        for _ in range(2):
            parameter.grad = grad.clone()
            optimizer.step()
    assert torch.equal(plain, last)


def test_parameters_without_a_gradient_stay() -> None:
    parameter = nn.Parameter(torch.ones(2))
    PaperSgd([{"params": [parameter], "lr": 0.1, "weight_decay": 0.1}], momentum=0.9).step()
    assert parameter.tolist() == [1.0, 1.0]


def test_torchs_fused_kernel_is_the_same_rule_also_through_a_drop() -> None:
    generator = torch.Generator().manual_seed(1)
    shapes = ((7, 3, 2, 2), (11,), (5, 4))
    ws = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
    vs = [torch.zeros_like(w) for w in ws]
    ws2, vs2 = [w.clone() for w in ws], [v.clone() for v in vs]
    for step in range(30):
        lr = 0.01 if step < 10 else 0.00004
        grads = [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]
        for w, v, grad in zip(ws, vs, grads, strict=True):
            _plain(w, v, grad, 0.9, lr, 0.0005 * lr)
        _fused(ws2, vs2, grads, 0.9, lr, 0.0005)
    for expected, found in zip([*ws, *vs], [*ws2, *vs2], strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_at_rate_0_nothing_moves_any_more() -> None:
    """cuda-convnet updates only where the rate is above 0: what is frozen does not roll on."""
    parameter = nn.Parameter(torch.ones(3))
    optimizer = PaperSgd([{"params": [parameter], "lr": 0.1, "weight_decay": 0.1}], momentum=0.9)
    for lr, moves in ((0.1, True), (0.0, False), (0.0, False), (0.1, True)):
        before, velocity = parameter.detach().clone(), optimizer.velocity(parameter).clone()
        optimizer.param_groups[0]["lr"] = lr
        parameter.grad = torch.ones(3)
        optimizer.step()
        assert torch.equal(parameter, before) is not moves
        assert torch.equal(optimizer.velocity(parameter), velocity) is not moves
