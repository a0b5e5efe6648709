"""The network against simpler twins: explicit towers, plain torch, and hand-made sums."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.model import response_norm as norms
from alexnet.model.architecture import ModelConfig, PaddingConfig
from alexnet.model.network import AlexNet, DropoutKey, initial_weights
from alexnet.model.response_norm import local_response_norm, map_norm

APART = ((0, 1), (1, 2))


def gradients(network: AlexNet, full: dict[str, Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits in training, and the full tensors of the gradient of their loss."""
    network.load_full(full)
    logits = network(images, DropoutKey(9, torch.arange(len(images))))
    functional.cross_entropy(logits, labels).backward()
    joined = {name: torch.zeros_like(tensor) for name, tensor in full.items()}
    for name, where, parameter in network.parameter_slices():
        assert parameter.grad is not None
        joined[name][where] = parameter.grad
    return logits.detach(), joined


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"kernels": (4, 8, 8, 8, 8, 8)},
        {"cross_connections": ("fc8",)},
        {"conv1_order": "relu-norm-pool"},
        {"nonlinearity": "tanh"},
        {"padding": PaddingConfig(conv2=1, conv5=1)},
    ],
    ids=["run", "six-conv", "no-cross-connections", "paper-text-order", "tanh", "padding"],
)
def test_two_towers_apart_are_the_grouped_network(tiny: ModelConfig, change: dict[str, object]) -> None:
    config = replace(tiny, **change)  # type: ignore[arg-type]  # a partial tree of fields
    full = initial_weights(config, seed=3, dtype=torch.float64)
    images = torch.randn(4, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 50
    labels = torch.arange(4) % config.classes
    logits, grads = gradients(AlexNet(config).double(), full, images, labels)
    other_logits, other = gradients(AlexNet(config, tower_ranges=APART).double(), full, images, labels)
    assert (other_logits - logits).abs().max() <= 1e-12 * logits.abs().max()
    for name, grad in grads.items():
        assert (other[name] - grad).abs().max() <= 1e-12 * grad.abs().max(), name


def test_the_grouped_network_is_plain_torch_written_out(tiny: ModelConfig) -> None:
    full = initial_weights(tiny, seed=5, dtype=torch.float64)
    network = AlexNet(tiny).double()
    network.load_full(full)
    images = torch.randn(2, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 50
    with torch.no_grad():
        assert torch.allclose(network(images), plain(full, images), rtol=1e-12, atol=1e-14)


def plain(full: dict[str, Tensor], images: Tensor) -> Tensor:
    """The run's network in test mode, without a table, parts or links."""

    def conv(x: Tensor, name: str, padding: int, groups: int, stride: int = 1) -> Tensor:
        return functional.conv2d(x, full[f"{name}.weight"], full[f"{name}.bias"], stride, padding, groups=groups)

    def lrn(x: Tensor) -> Tensor:
        return torch.cat([functional.local_response_norm(half, 5, 1e-4, 0.75, 2.0) for half in x.chunk(2, 1)], 1)

    def pool(x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 3, 2)

    x = conv(functional.pad(images, (0, 3, 0, 3)), "conv1", 0, 1, stride=4)
    x = functional.relu(pool(lrn(x)))
    x = lrn(functional.relu(conv(x, "conv2", 2, 2)))
    x = pool(x / (1 + 0.001 * functional.avg_pool2d(x**2, 5, 1, 2)) ** 0.75)
    x = functional.relu(conv(x, "conv3", 1, 1))
    x = functional.relu(conv(x, "conv4", 1, 2))
    x = pool(functional.relu(conv(x, "conv5", 1, 2))).flatten(1)
    for name in ("fc6", "fc7"):
        x = functional.relu(functional.linear(x, full[f"{name}.weight"], full[f"{name}.bias"])) * 0.5
    return functional.linear(x, full["fc8.weight"], full["fc8.bias"])


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
    maps = torch.randn(2, 6, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3)).requires_grad_()
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
    exact = norms._forward(maps, "band", 2, 5, 2e-5, 0.75, 2.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(norms._forward(maps, "band", 2, 5, 2e-5, 0.75, 2.0), exact)


def test_dropout_keeps_the_expectation_that_testing_uses(tiny: ModelConfig) -> None:
    network = AlexNet(replace(tiny, units=64))
    network.load_full(initial_weights(network.config, seed=1))
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)).repeat(512, 1, 1, 1) * 50
    with torch.no_grad():
        tested = network(images[:1], upto="fc6")
        trained = network(images, DropoutKey(5, torch.arange(512)), upto="fc6")
    assert set((trained / (2 * tested)).nan_to_num(0).round(decimals=4).flatten().tolist()) <= {0.0, 1.0}
    assert torch.allclose(trained.mean(0), tested[0], atol=0.15 * tested.max().item())


def test_features_of_every_layer_have_the_tables_size(tiny: ModelConfig) -> None:
    network = AlexNet(tiny, tower_ranges=APART)
    with torch.no_grad():
        for row in network.layers:
            found = network(torch.zeros(2, 3, 224, 224), upto=row.name)
            assert found.shape == ((2, row.outputs, row.out_px, row.out_px) if row.is_conv else (2, row.outputs))


def test_an_unknown_layer_is_refused_by_name(tiny: ModelConfig) -> None:
    with pytest.raises(ValueError, match="no layer 'fc9'; layers: conv1, conv2"):
        AlexNet(tiny)(torch.zeros(1, 3, 224, 224), upto="fc9")


def test_weights_of_another_shape_are_refused_by_name(tiny: ModelConfig) -> None:
    full = initial_weights(tiny, seed=1)
    with pytest.raises(ValueError, match=r"fc8\.bias: has shape \(3,\)"):
        AlexNet(tiny).load_full({**full, "fc8.bias": torch.zeros(3)})
    with pytest.raises(ValueError, match="conv3.weight: missing"):
        AlexNet(tiny).load_full({name: tensor for name, tensor in full.items() if name != "conv3.weight"})
