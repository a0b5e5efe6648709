"""The network: the table of model.py as a module, in whichever form the towers are held."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from alexnet.model.architecture import Layer, ModelConfig, table
from alexnet.model.links import Link, LocalLink
from alexnet.model.response_norm import local_response_norm, map_norm
from alexnet.randomness.keys import random_key
from alexnet.randomness.tensors import dropout_mask


@dataclass(frozen=True)
class DropoutKey:
    """What the dropout masks of a training pass depend on: the step's random key, and the samples' global indices (CPU)."""

    key: int
    samples: Int64[Tensor, " n"]


class AlexNet(nn.Module):
    """The eight layers, over the parts of the network that this process holds.

    tower_ranges: of each part. ((0, 2),) is the whole network in one part, convolutions grouped by tower;
    ((0, 1), (1, 2)) both towers apart, on devices of their own if moved there; ((1, 2),) one tower, for a process of
    its own. All forms are the same function of the same full tensors (`slice_of` says which part holds what).

    In 2012 every cross connection moved a layer's inputs to the other tower. Here conv3 and fc7 do; fc6 and fc8 are split
    by their inputs instead and move partial sums, the same function for fewer bytes.
    """

    def __init__(
        self,
        config: ModelConfig,
        *,
        tower_ranges: Sequence[tuple[int, int]] | None = None,
        link: Link | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.layers = table(config)
        self.link = link or LocalLink()
        self.parts = nn.ModuleList(_Part(config, towers) for towers in tower_ranges or [(0, config.towers)])
        # Added once, after the sum over towers: one parameter, whoever holds the towers.
        self.fc8_bias = nn.Parameter(torch.zeros(config.classes))

    def forward(
        self, images: Float[Tensor, "n 3 224 224"], dropout: DropoutKey | None = None, upto: str = "fc8"
    ) -> Float[Tensor, "n ..."]:
        """Logits; with `upto`, the output of that layer as the next one reads it, towers joined.

        images are on the 0-255 scale with the mean image subtracted. Training passes need `dropout`; without it units are
        kept and scaled, as in testing (4.2).
        """
        maps = [images.to(part.device, non_blocking=True) for part in self._parts()]
        for row in self.layers:
            maps = self._layer(row, maps, dropout)
            if row.name == upto:
                return self.link.gather(maps)[0] if row.name != "fc8" else maps[0]
        raise ValueError(f"no layer {upto!r}; layers: {', '.join(row.name for row in self.layers)}")

    def _layer(self, row: Layer, maps: list[Tensor], dropout: DropoutKey | None) -> list[Tensor]:
        if row.name == "fc6":
            maps = [x.flatten(1) for x in maps]
        if row.name == "fc8":
            return self._logits(maps)
        parts = self._parts()
        if splits_inputs(row):
            sums = self.link.sum_scatter([part.product(row, x) for part, x in zip(parts, maps, strict=True)])
            maps = [x + part.bias(row) for part, x in zip(parts, sums, strict=True)]
        else:
            if row.sees_all and row.name != "conv1":
                maps = self.link.gather(maps)
            maps = [part.apply_weights(row, x) for part, x in zip(parts, maps, strict=True)]
        return [part.finish(row, x, self.config, dropout) for part, x in zip(parts, maps, strict=True)]

    def _logits(self, maps: list[Tensor]) -> list[Tensor]:
        row = self.layers[-1]
        total = self.link.sum([part.product(row, x) for part, x in zip(self._parts(), maps, strict=True)])
        return [total[0] + self.fc8_bias.to(total[0].dtype)]

    def _parts(self) -> list["_Part"]:
        return list(self.parts)  # type: ignore[arg-type]  # ModuleList is not generic

    def parameter_slices(self) -> list[tuple[str, tuple[slice, ...], nn.Parameter]]:
        """Every parameter held here: the full tensor's name, the slice of it, and the parameter."""
        found = [
            (name, where, part.get(row, kind))
            for part in self._parts()
            for name, where, row, kind in _slices(self.config, part.towers)
        ]
        return [*found, ("fc8.bias", (slice(None),), self.fc8_bias)]

    def to_devices(self, devices: Sequence[torch.device]) -> "AlexNet":
        """Moves every part to its own device; the loss is then computed on the first."""
        for part, device in zip(self._parts(), devices, strict=True):
            part.to(device).to(memory_format=torch.channels_last)
        self.fc8_bias.data = self.fc8_bias.data.to(devices[0])
        return self

    @torch.no_grad()
    def load_full(self, tensors: Mapping[str, Any]) -> None:
        """Takes this form's slices of the full tensors, or of what can be sliced as they are.

        Raises:
            ValueError: one is missing or of another shape.
        """
        for name, where, parameter in self.parameter_slices():
            if name not in tensors:
                raise ValueError(f"{name}: missing from the weights; they hold {', '.join(sorted(tensors))}")
            piece = tensors[name][where]
            if piece.shape != parameter.shape:
                raise ValueError(f"{name}: has shape {tuple(piece.shape)}, this network needs {tuple(parameter.shape)}")
            parameter.copy_(piece)


def splits_inputs(row: Layer) -> bool:
    """Whether a tower holds the columns that read its own units, and partial sums travel instead of units."""
    return row.name in ("fc6", "fc8") and row.sees_all


def slice_of(row: Layer, kind: str, towers: tuple[int, int], count: int) -> tuple[slice, ...]:
    """Which part of a full tensor belongs to a range of `count` towers."""
    first, last = towers
    if kind == "weight" and splits_inputs(row):
        return slice(None), slice(row.inputs * first // count, row.inputs * last // count)
    return (slice(row.outputs * first // count, row.outputs * last // count),)


def layout(config: ModelConfig, tower_ranges: Sequence[tuple[int, int]]) -> list[tuple[str, tuple[slice, ...]]]:
    """Which slices of which full tensors the parts that hold these towers have for themselves."""
    return [(name, where) for towers in tower_ranges for name, where, _, _ in _slices(config, towers)]


def _slices(config: ModelConfig, towers: tuple[int, int]) -> Iterator[tuple[str, tuple[slice, ...], Layer, str]]:
    for row in table(config):
        for kind in ("weight", "bias"):
            if (row.name, kind) != ("fc8", "bias"):  # added once, by AlexNet
                yield f"{row.name}.{kind}", slice_of(row, kind, towers, config.towers), row, kind


def full_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the full tensors: the layout of every checkpoint and release."""
    shapes: dict[str, tuple[int, ...]] = {}
    for row in table(config):
        shapes[f"{row.name}.weight"] = row.weight_shape(config.towers)
        shapes[f"{row.name}.bias"] = (row.outputs,)
    return shapes


def initial_weights(config: ModelConfig, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Start values of the full tensors (section 5), keyed by name: equal in every form."""
    tensors: dict[str, Tensor] = {}
    for row in table(config):
        shape = row.weight_shape(config.towers)
        generator = torch.Generator().manual_seed(random_key(seed, "initial", row.name) >> 1)
        tensors[f"{row.name}.weight"] = (torch.randn(shape, generator=generator, dtype=torch.float32) * row.std).to(dtype)
        tensors[f"{row.name}.bias"] = torch.full((row.outputs,), row.bias, dtype=dtype)
    return tensors


class _Part(nn.Module):
    """The weights of a range of towers, and what they do between cross connections."""

    def __init__(self, config: ModelConfig, towers: tuple[int, int]) -> None:
        super().__init__()
        count = config.towers
        self.towers, self.count = towers, count
        self.held = towers[1] - towers[0]
        for _, where, row, kind in _slices(config, towers):
            shape = row.weight_shape(count) if kind == "weight" else (row.outputs,)
            piece = torch.zeros(shape, device="meta")[where]
            self.register_parameter(f"{row.name}_{kind}", nn.Parameter(torch.zeros(piece.shape)))

    @property
    def device(self) -> torch.device:
        """Where this part's weights are."""
        return self.get_parameter("conv1_weight").device

    def get(self, row: Layer, kind: str) -> nn.Parameter:
        """The parameter of a layer."""
        return self.get_parameter(f"{row.name}_{kind}")

    def bias(self, row: Layer) -> Tensor:
        """The biases of a layer's own units."""
        return self.get(row, "bias")

    def product(self, row: Layer, x: Float[Tensor, "n own"]) -> Float[Tensor, "n units"]:
        """The share of a fully connected layer's sums that comes from this part's units."""
        return functional.linear(x, self.get(row, "weight"))

    def apply_weights(self, row: Layer, x: Tensor) -> Tensor:
        """Kernels or weights and biases on a layer's input."""
        weight, bias = self.get(row, "weight"), self.bias(row)
        groups = 1 if row.sees_all else self.held
        if row.is_conv:
            if row.edge:
                x = functional.pad(x, (0, row.edge, 0, row.edge))
            return functional.conv2d(x, weight, bias, row.stride, row.padding, groups=groups)
        if groups == 1:
            return functional.linear(x, weight, bias)
        own = torch.einsum("ngi,goi->ngo", x.unflatten(1, (groups, -1)), weight.unflatten(0, (groups, -1)))
        return own.flatten(1) + bias

    def finish(self, row: Layer, x: Tensor, config: ModelConfig, dropout: DropoutKey | None) -> Tensor:
        """What follows the weights: non-linearity, norms, pooling, dropout, in the configured order."""
        activate = functional.relu if config.nonlinearity == "relu" else torch.tanh
        if row.activates == "first":
            x = activate(x)
        for norm in row.norms:
            x = self._norm(norm, x, config)
        if row.pools:
            x = functional.max_pool2d(x, config.pool.size, config.pool.stride, ceil_mode=True)
        if row.activates == "last":
            x = activate(x)
        return self._drop(row, x, config.dropout, dropout) if row.drops else x

    def _norm(self, norm: str, x: Tensor, config: ModelConfig) -> Tensor:
        if norm == "lrn":
            c = config.lrn
            alpha = c.alpha / c.size if c.alpha_over == "mean" else c.alpha
            return local_response_norm(x, towers=self.held, size=c.size, alpha=alpha, beta=c.beta, k=c.k)
        m = config.map_norm
        return map_norm(x, size=m.size, alpha=m.alpha / m.size**2, beta=m.beta, k=m.k)

    def _drop(
        self, row: Layer, x: Float[Tensor, "n units"], rate: float, dropout: DropoutKey | None
    ) -> Float[Tensor, "n units"]:
        """Dropout as in 2012 (4.2): training drops and does not rescale, testing multiplies by what is kept."""
        if dropout is None:
            return x * (1 - rate)
        first = row.outputs * self.towers[0] // self.count
        units = range(first, first + x.shape[1])
        return x * dropout_mask(random_key(dropout.key, row.name), dropout.samples, units, rate, x.device)
