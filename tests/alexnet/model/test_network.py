"""The network against simpler twins: explicit towers, plain torch, and hand-made sums."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from alexnet.model.architecture import ConvConfig, ModelConfig
from alexnet.model.network import AlexNet, initial_weights, keyed_dropout

APART = ((0, 1), (1, 2))


def gradients(network: AlexNet, full: dict[str, Tensor], images: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits in training, and the full tensors of the gradient of their loss."""
    network.load_full(full)
    logits = network(images, keyed_dropout(9, torch.arange(len(images))))
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
        {"conv2": ConvConfig(size=3, stride=2, padding=1, edge=1)},
        {"without": ("conv3", "fc6")},
        {"without": ("conv4", "fc6", "fc7")},
        {"dropout_layers": ("conv5", "fc6"), "dropout_inverted": True},
    ],
    ids=["run", "six-conv", "no-cross", "paper-text-order", "tanh", "shape", "four-conv", "one-fc", "inverted-dropout"],
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


def test_figure_1s_network_is_plain_torch_written_out(four_layer: ModelConfig) -> None:
    full = initial_weights(four_layer, seed=5, dtype=torch.float64)
    network = AlexNet(replace(four_layer, nonlinearity="tanh")).double()
    network.load_full(full)
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 50
    x = images
    for name in ("conv1", "conv2", "conv3"):
        x = functional.conv2d(x, full[f"{name}.weight"], full[f"{name}.bias"], padding=2)
        x = functional.max_pool2d(torch.tanh(x), 3, 2, ceil_mode=True)
    x = functional.linear(x.flatten(1), full["fc8.weight"], full["fc8.bias"])
    with torch.no_grad():
        assert torch.allclose(network(images), x, rtol=1e-12, atol=1e-14)


def test_dropout_keeps_the_expectation_that_testing_uses(tiny: ModelConfig) -> None:
    network = AlexNet(replace(tiny, units=64))
    network.load_full(initial_weights(network.config, seed=1))
    images = torch.randn(1, 3, 224, 224, generator=torch.Generator().manual_seed(1)).repeat(512, 1, 1, 1) * 50
    with torch.no_grad():
        tested = network(images[:1], upto="fc6")
        trained = network(images, keyed_dropout(5, torch.arange(512)), upto="fc6")
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
