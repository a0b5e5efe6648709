"""One picture in the network: the values at every point by tower, and what each tower takes from the other."""

from dataclasses import dataclass
from itertools import pairwise

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from alexnet.inference.activations import activations
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.augment import center_crop
from alexnet.model.architecture import Layer
from alexnet.model.points import SOFTMAX, last_point, points


@dataclass(frozen=True)
class Crossing:
    """What a layer takes from the other tower, at a cross connection.

    numbers: that each tower sends. shares: for every tower that reads, the part of the energy (sum of squares) of its weighted
    inputs that comes from the other one; for fc8, which is of both towers, the part that comes from tower b, alone. strongest:
    for every reading tower, the maps of the whole network's that the other one sends with the most energy, by index; empty
    where units cross.
    """

    layer: str
    numbers: int
    shares: tuple[float, ...]
    strongest: tuple[tuple[int, ...], ...]


@dataclass(frozen=True)
class Trace:
    """The center crop of one picture in a network of one or two towers.

    values: at every point, [channels height width] or [units], of both towers. logits_by_tower: each tower's part of fc8, whose
    sum with the bias is the logits; crossings: from conv3 or so to fc8, none in one tower.
    """

    values: dict[str, Float[Tensor, "..."]]
    crossings: tuple[Crossing, ...]
    logits_by_tower: Float[Tensor, "towers classes"]
    towers: int

    @property
    def probabilities(self) -> Float[Tensor, " classes"]:
        """Of every class."""
        return self.values[SOFTMAX]

    def by_tower(self, point: str) -> tuple[Tensor, ...]:
        """The values at a point, tower a's first."""
        return self.values[point].chunk(self.towers)

    def response(self, layer: str) -> str:
        """The point after everything that follows a layer's weights but dropout."""
        return [name for name in self.points_of(layer) if not name.endswith(".dropout")][-1]

    def points_of(self, layer: str) -> list[str]:
        """A layer's points in their order."""
        return [name for name in self.values if name.split(".")[0] == layer]


@torch.inference_mode()
def trace(model: Pretrained, image: UInt8[Tensor, "side side 3"]) -> Trace:
    """The center crop of an image, prepared as the network's are, at every point."""
    network, config = model.network, model.config.model
    crop = center_crop(image[None].to(model.device), model.mean_crop)
    values = {name: value[0].float().cpu() for name, value in activations(network, crop, points(config)).items()}
    weights = {name: tensor.detach().float().cpu() for name, _, tensor in network.parameter_slices()}
    inputs = {row.name: values[last_point(config, above.name)] for above, row in pairwise(network.layers)}
    crossings = [
        _crossing(row, inputs[row.name], weights[f"{row.name}.weight"], config.towers)
        for row in network.layers[1:]
        if config.towers > 1 and row.sees_all
    ]
    last = network.layers[-1].name
    parts = _split(inputs[last].flatten(), weights[f"{last}.weight"], config.towers)
    return Trace(values, tuple(crossings), torch.stack([weight @ part for part, weight in parts]), config.towers)


def _split(read: Tensor, weight: Tensor, towers: int) -> list[tuple[Tensor, Tensor]]:
    """Each tower's part of what is read, with the weights that read it."""
    return list(zip(read.chunk(towers), weight.chunk(towers, 1), strict=True))


def _crossing(row: Layer, read: Tensor, weight: Tensor, towers: int) -> Crossing:
    maps = read.shape[0] if read.dim() == 3 else 0
    parts = _split(read if row.is_conv else read.flatten(), weight, towers)
    sums = [_apply(row, part, its_weight) for part, its_weight in parts]
    if row.name == "fc8":
        energy = [float(each.square().sum()) for each in sums]
        return Crossing(row.name, read.numel() // towers, (energy[1] / max(sum(energy), 1e-30),), ())
    shares, strongest = [], []
    for tower in range(towers):
        own, other = (float(sums[source].chunk(towers)[tower].square().sum()) for source in (tower, 1 - tower))
        shares.append(other / max(own + other, 1e-30))
        first, count = (1 - tower) * maps // towers, maps // towers
        energy_by_map = [_map_energy(row, read, weight.chunk(towers)[tower], at) for at in range(first, first + count)]
        order = sorted(range(count), key=lambda at: -energy_by_map[at])
        strongest.append(tuple(first + at for at in order[:3]))
    return Crossing(row.name, read.numel() // towers, tuple(shares), tuple(strongest))


def _apply(row: Layer, read: Tensor, weight: Tensor) -> Tensor:
    """A layer's weighted inputs, without bias."""
    if row.is_conv:
        padded = functional.pad(read, (0, row.edge, 0, row.edge))
        return functional.conv2d(padded[None], weight, None, row.stride, row.padding)[0]
    return weight @ read


def _map_energy(row: Layer, read: Float[Tensor, "maps h w"], weight: Tensor, at: int) -> float:
    """The energy of what one map adds to a layer's weighted inputs."""
    if row.is_conv:
        return float(_apply(row, read[at : at + 1], weight[:, at : at + 1]).square().sum())
    area = read.shape[1] * read.shape[2]
    return float((weight[:, at * area : (at + 1) * area] @ read[at].flatten()).square().sum())
