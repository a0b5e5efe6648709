"""The network: the table of `architecture` as a module, in one part or split by tower."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.nn import functional

from alexnet.model.architecture import Layer, ModelConfig, table
from alexnet.model.links import Link, LocalLink
from alexnet.model.points import steps
from alexnet.model.response_norm import local_response_norm, map_norm
from alexnet.model.strided_conv import strided_conv
from alexnet.randomness.keys import random_key
from alexnet.randomness.tensors import dropout_mask, mask_words

Slices = tuple[slice, ...]
Dropout = Callable[[str], Int64[Tensor, " words"]]  # gives the words, see `mask_words`, of the mask of a layer
Tap = Callable[[str, list[Tensor]], None]  # is called with a point's name and its values, a tensor for every part


class AlexNet(nn.Module):
    """The layers of the table, over the parts of the network that are in this process.

    In 2012 every cross connection moved a layer's inputs to the other tower. Here conv3 and fc7 do; fc6 and fc8 are split
    by their inputs instead and move partial sums, the same function for fewer bytes.

    Args:
        tower_ranges: the towers of each part. ((0, 2),) is the whole network in one part, convolutions grouped by tower;
            ((0, 1), (1, 2)) has the towers apart, each on its own device after `to_devices`; ((1, 2),) is one tower, for a
            process of its own. All are the same function of the same full tensors.
        link: to the towers of other processes.
    """

    def __init__(
        self, config: ModelConfig, *, tower_ranges: Sequence[tuple[int, int]] | None = None, link: Link | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.layers = table(config)
        self.link = link or LocalLink()
        self.parts = nn.ModuleList(_Part(config, towers) for towers in tower_ranges or [(0, config.towers)])
        self.fc8_bias = nn.Parameter(torch.zeros(config.classes))  # added once, after the sum over towers

    def forward(
        self,
        images: Float[Tensor, "n 3 side side"],
        dropout: Dropout | None = None,
        upto: str = "fc8",
        tap: Tap = lambda name, maps: None,
    ) -> Float[Tensor, "n ..."]:
        """Logits, or with `upto` the output of that layer as the next one reads it, of both towers.

        Args:
            images: on the 0-255 scale, the mean image subtracted.
            dropout: for training. Without it, units are multiplied by their chance to be kept, as in testing (4.2).
            tap: is shown the values at every point that is passed; `inference.activations` keeps them.
        """
        maps = [images.to(part.device, non_blocking=True) for part in self._parts()]
        for row in self.layers:
            maps = self._layer(row, maps, dropout, tap)
            if row.name == upto:
                return self.link.gather(maps)[0] if row.name != "fc8" else maps[0]
        raise ValueError(f"no layer {upto!r}; layers: {', '.join(row.name for row in self.layers)}")

    def _layer(self, row: Layer, maps: list[Tensor], dropout: Dropout | None, tap: Tap) -> list[Tensor]:
        parts = self._parts()
        if not row.is_conv:
            maps = [x.flatten(1) for x in maps]
        if row.name == "fc8":
            maps = [x.to(part.weight(row).dtype) for part, x in zip(parts, maps, strict=True)]
        if _splits_inputs(row):
            products = [functional.linear(x, part.weight(row)) for part, x in zip(parts, maps, strict=True)]
            if row.name == "fc8":
                total = self.link.sum(products)[0]
                maps = [total + self.fc8_bias.to(total.dtype)]
            else:
                sums = self.link.sum_scatter(products)
                maps = [x + part.bias(row) for part, x in zip(parts, sums, strict=True)]
        else:
            if row.sees_all and row.name != "conv1":
                maps = self.link.gather(maps)
            maps = [part.apply_weights(row, x) for part, x in zip(parts, maps, strict=True)]
        tap(row.name, maps)
        for step in steps(row, self.config):
            maps = [part.apply_step(step, row, x, dropout) for part, x in zip(parts, maps, strict=True)]
            tap(f"{row.name}.{step}", maps)
        return maps

    def _parts(self) -> list["_Part"]:
        return list(self.parts)  # type: ignore[arg-type]  # ModuleList is not generic

    def parameter_slices(self) -> list[tuple[str, Slices, nn.Parameter]]:
        """Every parameter in this process: the full tensor's name, the slice of it, and the parameter."""
        found = [
            (name, where, part.get_parameter(name.replace(".", "_")))
            for part in self._parts()
            for name, where in tensor_slices(self.config, part.towers)
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
        """Copies this process's slices of the full tensors, which may be views of a file.

        Raises:
            ValueError: one is missing or of another shape.
        """
        for name, where, parameter in self.parameter_slices():
            if name not in tensors:
                raise ValueError(f"{name}: missing from the weights; they hold {', '.join(sorted(tensors))}")
            values = tensors[name][where]
            if values.shape != parameter.shape:
                raise ValueError(f"{name}: has shape {tuple(values.shape)}, this network needs {tuple(parameter.shape)}")
            parameter.copy_(values)


def _splits_inputs(row: Layer) -> bool:
    """Whether a tower has the weights that read its own units, so that partial sums are exchanged instead of units."""
    return row.name in ("fc6", "fc8") and row.sees_all


def tensor_slices(config: ModelConfig, towers: tuple[int, int]) -> Iterator[tuple[str, Slices]]:
    """Names of the full tensors, and the slice of each that belongs to a range of towers; fc8.bias belongs to none."""
    first, last = towers
    for row in table(config):
        outputs = slice(row.outputs * first // config.towers, row.outputs * last // config.towers)
        inputs = slice(row.inputs * first // config.towers, row.inputs * last // config.towers)
        yield f"{row.name}.weight", (slice(None), inputs) if _splits_inputs(row) else (outputs,)
        if row.name != "fc8":
            yield f"{row.name}.bias", (outputs,)


def full_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the full tensors: the layout of every checkpoint and release."""
    shapes: dict[str, tuple[int, ...]] = {}
    for row in table(config):
        shapes[f"{row.name}.weight"] = row.weight_shape(config.towers)
        shapes[f"{row.name}.bias"] = (row.outputs,)
    return shapes


def keyed_dropout(key: int, samples: Int64[Tensor, " n"]) -> Dropout:
    """Dropout whose masks are drawn as they are used, from a step's random key and the samples' global indices (CPU)."""
    return lambda layer: mask_words(random_key(key, layer), samples)


def initial_weights(config: ModelConfig, seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Start values of the full tensors (section 5), by name; drawn in float32 whatever the dtype."""
    tensors: dict[str, Tensor] = {}
    for row in table(config):
        shape = row.weight_shape(config.towers)
        generator = torch.Generator().manual_seed(random_key(seed, "initial", row.name) >> 1)
        tensors[f"{row.name}.weight"] = (torch.randn(shape, generator=generator, dtype=torch.float32) * row.std).to(dtype)
        tensors[f"{row.name}.bias"] = torch.full((row.outputs,), row.bias, dtype=dtype)
    return tensors


class _Part(nn.Module):
    """The weights of a range of towers, and what they compute between cross connections."""

    def __init__(self, config: ModelConfig, towers: tuple[int, int]) -> None:
        super().__init__()
        self.config, self.towers = config, towers
        self.tower_count = towers[1] - towers[0]
        shapes = full_shapes(config)
        for name, where in tensor_slices(config, towers):
            shape = torch.empty(shapes[name], device="meta")[where].shape
            self.register_parameter(name.replace(".", "_"), nn.Parameter(torch.zeros(shape)))

    @property
    def device(self) -> torch.device:
        """Of the weights."""
        return self.get_parameter("conv1_weight").device

    def weight(self, row: Layer) -> nn.Parameter:
        """This part's slice of a layer's weights."""
        return self.get_parameter(f"{row.name}_weight")

    def bias(self, row: Layer) -> nn.Parameter:
        """This part's slice of a layer's biases."""
        return self.get_parameter(f"{row.name}_bias")

    def apply_weights(self, row: Layer, x: Tensor) -> Tensor:
        """The convolution, or the product of a fully connected layer, with biases."""
        weight, bias = self.weight(row), self.bias(row)
        groups = 1 if row.sees_all else self.tower_count
        if row.is_conv:
            if row.edge:
                x = functional.pad(x, (0, row.edge, 0, row.edge))
            if row.stride > 1 and groups == 1 and row.padding == 0 and x.device.type == "cuda":
                return strided_conv(x, weight, bias, row.stride)
            return functional.conv2d(x, weight, bias, row.stride, row.padding, groups=groups)
        if groups == 1:
            return functional.linear(x, weight, bias)
        own = torch.einsum("ngi,goi->ngo", x.unflatten(1, (groups, -1)), weight.unflatten(0, (groups, -1)))
        return own.flatten(1) + bias

    def apply_step(self, step: str, row: Layer, x: Tensor, dropout: Dropout | None) -> Tensor:
        """One of the steps that follow the weights."""
        if step == "relu":
            return functional.relu(x)
        if step == "tanh":
            return torch.tanh(x)
        if step == "pool":
            return functional.max_pool2d(x, self.config.pool.size, self.config.pool.stride, ceil_mode=True)
        return self._drop(row, x, dropout) if step == "dropout" else self._norm(step, x)

    def _norm(self, norm: str, x: Tensor) -> Tensor:
        if norm == "lrn":
            c = self.config.lrn
            alpha = c.alpha / c.size if c.alpha_over == "mean" else c.alpha
            return local_response_norm(x, towers=self.tower_count, size=c.size, alpha=alpha, beta=c.beta, k=c.k)
        m = self.config.map_norm
        return map_norm(x, size=m.size, alpha=m.alpha / m.size**2, beta=m.beta, k=m.k)

    def _drop(self, row: Layer, x: Float[Tensor, "n ..."], dropout: Dropout | None) -> Float[Tensor, "n ..."]:
        """Dropout (4.2): testing multiplies by the chance to be kept, as in 2012; or training divides by it, where inverted."""
        keep_chance, inverted = 1 - self.config.dropout, self.config.dropout_inverted
        if dropout is None:
            return x if inverted else x * keep_chance
        count = x[0].numel()  # outputs of this part, whose towers' channels are in one piece
        first = self.towers[0] * count // self.tower_count
        units = range(first, first + count)
        mask = dropout_mask(dropout(row.name), units, self.config.dropout, x.device).view(x.shape)
        return x * mask / keep_chance if inverted else x * mask
