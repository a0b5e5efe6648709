"""The architecture as a table of layers, as in figure 2 of the paper.

Sections are those of the paper. "The run" is run #145 of the source released in 2012 (layers-145.cfg), whose numbers the paper
reports; "the text" is what the paper says of it, where the two differ.
"""

from dataclasses import dataclass, fields
from math import prod
from typing import Literal

CROP_PX = 224
CHANNELS = 3
LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6", "fc6", "fc7", "fc8")


@dataclass(frozen=True)
class FirstConvConfig:
    """conv1: kernel size and stride in pixels; `edge` zero pixels at the right and the bottom."""

    size: int
    stride: int
    edge: int


@dataclass(frozen=True)
class PaddingConfig:
    """Zero pixels around the input of conv2 and conv5, the two that the non-overlapping variant changes."""

    conv2: int
    conv5: int


@dataclass(frozen=True)
class PoolConfig:
    """Max pooling: window and stride in pixels. size > stride overlaps (3.4)."""

    size: int
    stride: int


@dataclass(frozen=True)
class LrnConfig:
    """Local response norm (3.3) over `size` adjacent channels of one tower.

    alpha_over: `mean` divides alpha by size, as the run did; `sum` does not, as the paper's formula reads.
    """

    layers: tuple[str, ...]
    size: int
    alpha: float
    beta: float
    k: float
    alpha_over: Literal["mean", "sum"]


@dataclass(frozen=True)
class MapNormConfig:
    """The norm over size x size pixels of the same channel that the run had after conv2's LRN; not in the paper."""

    layers: tuple[str, ...]
    size: int
    alpha: float
    beta: float
    k: float


@dataclass(frozen=True)
class InitConfig:
    """Start values: normal weights of `std` (`middle_std` in conv3 and above), biases 1 in `ones` and 0 elsewhere."""

    std: float
    middle_std: float
    ones: tuple[str, ...]


@dataclass(frozen=True)
class ModelConfig:
    """The architecture. kernels and units are those of one tower; a sixth entry in kernels is conv6, above pool3."""

    classes: int
    towers: int
    kernels: tuple[int, ...]
    units: int
    conv1: FirstConvConfig
    padding: PaddingConfig
    cross_connections: tuple[str, ...]
    nonlinearity: Literal["relu", "tanh"]
    conv1_order: Literal["norm-pool-relu", "relu-norm-pool"]
    pool: PoolConfig
    lrn: LrnConfig
    map_norm: MapNormConfig
    dropout: float
    init: InitConfig

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ValueError(f"classes: must be at least 2, got {self.classes}")
        if self.towers not in (1, 2):
            raise ValueError(f"towers: must be 1 or 2, got {self.towers}")
        if len(self.kernels) not in (5, 6) or min(self.kernels) < 1 or self.units < 1:
            raise ValueError(
                f"kernels: must be 5 or 6 counts of at least 1, with units at least 1, got {self.kernels} and {self.units}"
            )
        if self.lrn.size % 2 == 0 or self.map_norm.size % 2 == 0:
            raise ValueError(f"lrn.size: norms must have odd sizes, to center, got {self.lrn.size} and {self.map_norm.size}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: must be in [0, 1), got {self.dropout}")
        if "fc8" not in self.cross_connections:
            raise ValueError("cross_connections: must have fc8, or there would be two networks")
        named = {*self.cross_connections, *self.lrn.layers, *self.map_norm.layers, *self.init.ones}
        if unknown := sorted(named - set(LAYERS)):
            raise ValueError(f"cross_connections: no such layer: {', '.join(unknown)}; layers: {', '.join(LAYERS)}")


@dataclass(frozen=True)
class Layer:
    """One row of the table. inputs, outputs: channels or units of the whole network; sizes in pixels.

    sees_all: reads the outputs of both towers. `size_px` is the side of the convolution's output, `out_px` after pooling.
    """

    name: str
    inputs: int
    outputs: int
    sees_all: bool
    kernel: int = 1
    stride: int = 1
    padding: int = 0
    edge: int = 0
    size_px: int = 1
    out_px: int = 1
    norms: tuple[str, ...] = ()  # of lrn and map_norm, in this order
    pools: bool = False
    activates: Literal["first", "last", "never"] = "last"  # before or after norms and pool
    drops: bool = False
    std: float = 0.01
    bias: float = 0.0

    @property
    def is_conv(self) -> bool:
        """A convolution; otherwise fully connected."""
        return self.name.startswith("conv")

    def weight_shape(self, towers: int) -> tuple[int, ...]:
        """Shape of the whole network's weight: a row of every tower's kernels, which read one tower's channels or all."""
        read = self.inputs if self.sees_all else self.inputs // towers
        return (self.outputs, read, self.kernel, self.kernel) if self.is_conv else (self.outputs, read)


def table(config: ModelConfig) -> tuple[Layer, ...]:
    """The layers from conv1 to fc8, with the sizes that a 224x224 crop gives (section 3.5).

    Raises:
        ValueError: the sizes do not work out, for instance a kernel larger than its input.
    """
    rows: list[Layer] = []
    channels, side = CHANNELS, CROP_PX
    for number, kernels in enumerate(config.kernels, 1):
        row = _conv(config, number, channels, kernels * config.towers, side)
        rows.append(row)
        channels, side = row.outputs, row.out_px
    units = config.units * config.towers
    rows.append(_full(config, "fc6", channels * side * side, units))
    rows.append(_full(config, "fc7", units, units))
    rows.append(_full(config, "fc8", units, config.classes))
    return tuple(rows)


def _conv(config: ModelConfig, number: int, inputs: int, outputs: int, side: int) -> Layer:
    name = f"conv{number}"
    first = number == 1
    kernel = config.conv1.size if first else 5 if number == 2 else 3
    stride = config.conv1.stride if first else 1
    edge = config.conv1.edge if first else 0
    padding = {1: 0, 2: config.padding.conv2, 5: config.padding.conv5}.get(number, 1)
    pools = number in (1, 2, 5)
    size = (side + 2 * padding + edge - kernel) // stride + 1
    # Pooling windows may hang over the edge, as in the source; with 3/2 they never do.
    out = -(-(size - config.pool.size) // config.pool.stride) + 1 if pools else size
    if size < 1 or out < 1:
        raise ValueError(
            f"{name}: a {side}-pixel input leaves {size} pixels, {out} after pooling; use smaller kernels or more padding"
        )
    norms = tuple(norm for norm, of in (("lrn", config.lrn), ("map_norm", config.map_norm)) if name in of.layers)
    norm_sees_rectified = bool(norms) and (not first or config.conv1_order == "relu-norm-pool")
    return Layer(
        name=name,
        inputs=inputs,
        outputs=outputs,
        sees_all=first or name in config.cross_connections,
        kernel=kernel,
        stride=stride,
        padding=padding,
        edge=edge,
        size_px=size,
        out_px=out,
        norms=norms,
        pools=pools,
        activates="first" if norm_sees_rectified else "last",
        std=config.init.std if number < 3 else config.init.middle_std,
        bias=float(name in config.init.ones),
    )


def _full(config: ModelConfig, name: str, inputs: int, outputs: int) -> Layer:
    hidden = name != "fc8"
    return Layer(
        name=name,
        inputs=inputs,
        outputs=outputs,
        sees_all=name in config.cross_connections,
        activates="last" if hidden else "never",
        drops=hidden and config.dropout > 0,
        std=config.init.std,
        bias=float(name in config.init.ones),
    )


@dataclass(frozen=True)
class LayerCounts:
    """What one layer has and does for one 224x224 crop, over both towers; tower_*: in each of them.

    neurons: outputs before pooling, as the paper counts them. macs: multiply-accumulates. fc8 belongs to the whole network, as
    in 2012 all of its classes were on one GPU: its tower_* are 0.
    """

    name: str
    kernels: int
    size_px: int
    out_px: int
    weights: int
    biases: int
    neurons: int
    macs: int
    tower_kernels: int
    tower_parameters: int
    tower_macs: int

    @property
    def parameters(self) -> int:
        """Weights and biases."""
        return self.weights + self.biases


def layer_counts(config: ModelConfig) -> tuple[LayerCounts, ...]:
    """The counts of every layer."""
    return tuple(_count(row, config.towers) for row in table(config))


def _count(row: Layer, towers: int) -> LayerCounts:
    weights, area = prod(row.weight_shape(towers)), row.size_px**2
    share = 0 if row.name == "fc8" else 1
    return LayerCounts(
        name=row.name,
        kernels=row.outputs,
        size_px=row.size_px,
        out_px=row.out_px,
        weights=weights,
        biases=row.outputs,
        neurons=row.outputs * area,
        macs=weights * area,
        tower_kernels=share * row.outputs // towers,
        tower_parameters=share * (weights + row.outputs) // towers,
        tower_macs=share * weights * area // towers,
    )


def total_counts(layers: tuple[LayerCounts, ...]) -> LayerCounts:
    """The sums over all layers, under the name `total`; sizes in pixels are 0."""
    names = [field.name for field in fields(LayerCounts) if field.name not in ("name", "size_px", "out_px")]
    return LayerCounts("total", size_px=0, out_px=0, **{name: sum(getattr(layer, name) for layer in layers) for name in names})
