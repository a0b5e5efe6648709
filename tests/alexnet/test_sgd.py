"""The update rule by hand."""

import pytest
import torch
from torch import nn

from alexnet.sgd import PaperSgd


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
        assert parameter.tolist() == pytest.approx(w, rel=1e-6)


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
