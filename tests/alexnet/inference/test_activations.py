"""Values at the points of the network, against forward hooks on a twin made of torch's modules."""

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from alexnet.inference.activations import activations, center_activations
from alexnet.inference.pretrained import Preprocessing, Pretrained, PretrainedConfig
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import AlexNet, initial_weights
from alexnet.model.points import points, steps
from alexnet.model.response_norm import local_response_norm, map_norm
from alexnet.shards.manifest import Synset


class Call(nn.Module):
    """A function as a module, so that a hook can be put on it."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)  # type: ignore[no-any-return]  # lambdas with defaults have no type of their own


def twin(network: AlexNet, full: dict[str, Tensor]) -> nn.Sequential:
    """The network as modules in a row, named by points. fc6 and fc8 add the bias last, to what may be sums over towers."""
    c = network.config
    modules: OrderedDict[str, nn.Module] = OrderedDict()
    for row in network.layers:
        weight, bias = full[f"{row.name}.weight"], full[f"{row.name}.bias"]
        if row.is_conv:
            groups = 1 if row.sees_all else c.towers
            layer: nn.Module = nn.Conv2d(row.inputs, row.outputs, row.kernel, row.stride, row.padding, groups=groups)
            modules |= {"edge": nn.ZeroPad2d((0, row.edge, 0, row.edge))} if row.edge else {}
        elif row.name == "fc7":
            layer = nn.Linear(row.inputs, row.outputs)
        else:
            layer = Call(lambda x, weight=weight, bias=bias: x @ weight.T + bias)
            modules |= {"flatten": nn.Flatten()} if row.name == "fc6" else {}
        if not isinstance(layer, Call):
            layer.load_state_dict({"weight": weight, "bias": bias})
        made = {
            "relu": nn.ReLU(),
            "tanh": nn.Tanh(),
            "lrn": Call(partial(local_response_norm, towers=2, size=5, alpha=1e-4 / 5, beta=0.75, k=2.0)),
            "map_norm": Call(partial(map_norm, size=5, alpha=0.001 / 25, beta=0.75, k=1.0)),
            "pool": nn.MaxPool2d(3, 2),
            "dropout": Call(lambda x: x * 0.5),
        }
        modules[row.name] = layer
        modules |= {f"{row.name}_{step}": made[step] for step in steps(row, c)}
    return nn.Sequential(OrderedDict(**modules, softmax=nn.Softmax(1)))


@pytest.mark.parametrize(
    "change", [{}, {"conv1_order": "relu-norm-pool"}, {"nonlinearity": "tanh"}, {"kernels": (4, 8, 8, 8, 8, 8), "dropout": 0.0}]
)
def test_every_point_is_what_a_forward_hook_sees_bit_for_bit(tiny: ModelConfig, change: dict[str, object]) -> None:
    network = AlexNet(replace(tiny, **change)).to(memory_format=torch.channels_last)  # type: ignore[arg-type]
    full = initial_weights(network.config, seed=1)
    network.load_full(full)
    crops = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1)).to(memory_format=torch.channels_last) * 50
    seen: dict[str, Tensor] = {}
    modules = twin(network, full).to(memory_format=torch.channels_last)
    for name, module in modules.named_children():
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name.replace("_", ".", 1): output}))
    with torch.inference_mode():
        modules(crops)
    found = activations(network, crops, points(network.config))
    assert tuple(found) == points(network.config)
    for name, values in found.items():
        assert torch.equal(values, seen[name]), name


def test_towers_apart_give_the_channels_of_the_whole_network_in_order(tiny: ModelConfig) -> None:
    full = initial_weights(tiny, seed=2, dtype=torch.float64)
    crops = torch.randn(2, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(2)) * 50
    networks = [AlexNet(tiny).double(), AlexNet(tiny, tower_ranges=((0, 1), (1, 2))).double()]
    for network in networks:
        network.load_full(full)
    whole, apart = (activations(network, crops, points(tiny)) for network in networks)
    for name, values in whole.items():
        assert values.shape == apart[name].shape
        assert torch.allclose(values, apart[name], rtol=1e-9, atol=1e-12), name


def test_points_are_given_in_the_order_asked_for_and_nothing_beyond_is_computed(
    tiny: ModelConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = AlexNet(tiny)
    network.load_full(initial_weights(tiny, seed=1))
    computed: list[str] = []
    layer = network._layer

    def counted(row: Any, *rest: Any) -> list[Tensor]:
        computed.append(row.name)
        return layer(row, *rest)

    monkeypatch.setattr(network, "_layer", counted)
    assert list(activations(network, torch.zeros(1, 3, 224, 224), ["conv2.lrn", "conv1"])) == ["conv2.lrn", "conv1"]
    assert computed == ["conv1", "conv2"]


def test_an_unknown_point_is_refused(tiny: ModelConfig) -> None:
    with pytest.raises(ValueError, match=r"no point conv1\.norm; this network has conv1, conv1\.lrn"):
        activations(AlexNet(tiny), torch.zeros(1, 3, 224, 224), ["conv1.norm"])


def test_a_trained_networks_are_those_of_the_center_crop_in_its_precision(tiny: ModelConfig) -> None:
    network = AlexNet(tiny)
    network.load_full(initial_weights(tiny, seed=1))
    synsets = tuple(Synset(label, f"n{label:08d}", f"class {label}") for label in range(tiny.classes))
    model = Pretrained(network, PretrainedConfig(tiny, synsets, Preprocessing(256, "area")), torch.full((256, 256, 3), 120.0))
    images = torch.randint(0, 256, (2, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    crops = (images[:, 16:240, 16:240].float() - 120).permute(0, 3, 1, 2)
    for name, values in center_activations(model, images, ["conv5.pool", "fc7"]).items():
        assert torch.equal(values, activations(network, crops, [name])[name])
    half = center_activations(model.at("bf16"), images, ["fc7.relu"])["fc7.relu"]
    whole = center_activations(model, images, ["fc7.relu"])["fc7.relu"]
    assert half.dtype == torch.bfloat16
    assert (half - whole).abs().max() <= 0.05 * whole.abs().max()
