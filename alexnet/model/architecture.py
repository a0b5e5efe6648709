"""The architecture as a table of layers, as in figure 2 of the paper.

Sections are those of the paper. "The run" is run #145 of the source released in 2012 (layers-145.cfg), whose numbers the paper
reports; "the text" is what the paper says of it, where the two differ.
"""

from dataclasses import dataclass, fields
from math import prod
from operator import attrgetter
from typing import Any, Literal

CHANNELS = 3
CONVOLUTIONS = ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6")
LAYERS = (*CONVOLUTIONS, "fc6", "fc7", "fc8")
MAX_PX, MAX_UNITS = 4096, 1 << 20  # of images and kernels; of channels, units and classes
_NAMEABLE = {  # the layers that a list may name
    "without": LAYERS[1:-1],
    "cross_connections": LAYERS,
    "pool.layers": CONVOLUTIONS,
    "lrn.layers": CONVOLUTIONS,
    "map_norm.layers": CONVOLUTIONS,
    "dropout_layers": LAYERS[:-1],
    "init.ones": LAYERS,
}


@dataclass(frozen=True)
class ConvConfig:
    """A convolution: kernel size, stride, zero padding all around, and `edge` zeros more at the right and bottom; in pixels."""

    size: int
    stride: int
    padding: int
    edge: int

    def __post_init__(self) -> None:
        if min(self.size, self.stride) < 1 or min(self.padding, self.edge) < 0 or max(vars(self).values()) > MAX_PX:
            raise ValueError(
                f"size: must be at least 1, as stride; padding and edge at least 0; none above {MAX_PX:,}; got {self}"
            )


@dataclass(frozen=True)
class PoolConfig:
    """Max pooling after `layers`: window and stride in pixels. size > stride overlaps (3.4)."""

    layers: tuple[str, ...]
    size: int
    stride: int

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.size <= MAX_PX:
            raise ValueError(f"stride: must be from 1 to size, got {self.stride} with size {self.size}")


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
    """The architecture.

    input_px: side of the crops that it reads. kernels, units: of one tower; as many convolutions as kernels. without: layers
    left out, of conv2 to fc7. dropout: chance of an output of `dropout_layers` to be dropped. dropout_inverted: training
    divides what is kept by its chance, as networks after 2012 do, instead of testing multiplying by it (4.2).
    """

    classes: int
    input_px: int
    towers: int
    kernels: tuple[int, ...]
    units: int
    without: tuple[str, ...]
    conv1: ConvConfig
    conv2: ConvConfig
    conv3: ConvConfig
    conv4: ConvConfig
    conv5: ConvConfig
    conv6: ConvConfig
    cross_connections: tuple[str, ...]
    nonlinearity: Literal["relu", "tanh"]
    conv1_order: Literal["norm-pool-relu", "relu-norm-pool"]
    pool: PoolConfig
    lrn: LrnConfig
    map_norm: MapNormConfig
    dropout: float
    dropout_layers: tuple[str, ...]
    dropout_inverted: bool
    init: InitConfig

    def __post_init__(self) -> None:
        if not 2 <= self.classes <= MAX_UNITS:
            raise ValueError(f"classes: must be at least 2, got {self.classes}; at most {MAX_UNITS:,}")
        if not 1 <= self.input_px <= MAX_PX:
            raise ValueError(f"input_px: must be 1 to {MAX_PX:,}, got {self.input_px}")
        if self.towers not in (1, 2):
            raise ValueError(f"towers: must be 1 or 2, got {self.towers}")
        counts = (*self.kernels, self.units)
        if not 1 <= len(self.kernels) <= len(CONVOLUTIONS) or not 1 <= min(counts) <= max(counts) <= MAX_UNITS:
            raise ValueError(
                f"kernels: must be 1 to 6 counts of at least 1, with units at least 1, none above {MAX_UNITS:,}, "
                f"got {self.kernels} and {self.units}"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: must be in [0, 1), got {self.dropout}")
        if "fc8" not in self.cross_connections:
            raise ValueError("cross_connections: must have fc8, or there would be two networks")
        self._check_norms()
        self._check_names()

    def _check_norms(self) -> None:
        for name, norm in (("lrn", self.lrn), ("map_norm", self.map_norm)):
            if norm.size % 2 == 0 or not 1 <= norm.size < MAX_PX:
                raise ValueError(
                    f"{name}.size: norms must have odd sizes, to center, from 1 to {MAX_PX - 1:,}, got {norm.size}"
                )
            if min(norm.alpha, norm.beta) < 0 or norm.k <= 0:
                raise ValueError(f"{name}.k: must be above 0, alpha and beta at least 0, got {norm}")

    def _check_names(self) -> None:
        for path, allowed in _NAMEABLE.items():
            if unknown := [name for name in attrgetter(path)(self) if name not in allowed]:
                raise ValueError(f"{path}: must name layers of {', '.join(allowed)}; got {', '.join(unknown)}")

    @property
    def convolutions(self) -> tuple[str, ...]:
        """The names of those that it has."""
        return tuple(name for name in CONVOLUTIONS[: len(self.kernels)] if name not in self.without)


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
    """The layers from conv1 to fc8, with the sizes that crops of `input_px` give (section 3.5).

    Raises:
        ValueError: the sizes do not work out, for instance a kernel larger than its input.
    """
    rows: list[Layer] = []
    channels, side = CHANNELS, config.input_px
    for name in config.convolutions:
        row = _conv(config, name, channels, side)
        rows.append(row)
        channels, side = row.outputs, row.out_px
    inputs = channels * side * side
    for name in ("fc6", "fc7", "fc8"):
        if name not in config.without:
            rows.append(_full(config, name, inputs))
            inputs = rows[-1].outputs
    return tuple(rows)


def _conv(config: ModelConfig, name: str, inputs: int, side: int) -> Layer:
    number = CONVOLUTIONS.index(name)
    shape: ConvConfig = getattr(config, name)
    first, pools = name == "conv1", name in config.pool.layers
    size = (side + 2 * shape.padding + shape.edge - shape.size) // shape.stride + 1
    # Pooling windows may hang over the edge, as in the source; with 3/2 they never do from 224 pixels.
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
        outputs=config.kernels[number] * config.towers,
        sees_all=first or name in config.cross_connections,
        kernel=shape.size,
        stride=shape.stride,
        padding=shape.padding,
        edge=shape.edge,
        size_px=size,
        out_px=out,
        norms=norms,
        pools=pools,
        activates="first" if norm_sees_rectified else "last",
        drops=config.dropout > 0 and name in config.dropout_layers,
        std=config.init.std if number < 2 else config.init.middle_std,
        bias=float(name in config.init.ones),
    )


def _full(config: ModelConfig, name: str, inputs: int) -> Layer:
    hidden = name != "fc8"
    return Layer(
        name=name,
        inputs=inputs,
        outputs=config.units * config.towers if hidden else config.classes,
        sees_all=name in config.cross_connections,
        activates="last" if hidden else "never",
        drops=config.dropout > 0 and name in config.dropout_layers,
        std=config.init.std,
        bias=float(name in config.init.ones),
    )


def current_model(tree: Any) -> Any:
    """A plain tree of ModelConfig; one written when the input, conv3 to conv6 and more were fixed gets the values they had."""
    if not isinstance(tree, dict) or "padding" not in tree or not isinstance(tree["padding"], dict):
        return tree
    padding = {"conv1": 0, "conv2": 2} | tree["padding"]
    added: dict[str, Any] = {
        "input_px": 224,
        "without": [],
        "dropout_layers": ["fc6", "fc7"],
        "dropout_inverted": False,
    }
    for name in CONVOLUTIONS:
        shape = {"size": 5 if name == "conv2" else 3, "stride": 1, "padding": padding.get(name, 1), "edge": 0}
        added[name] = shape | (tree.get(name) or {})
    pool = {"layers": ["conv1", "conv2", "conv5"]} | (tree.get("pool") or {})
    return {name: leaf for name, leaf in tree.items() if name != "padding"} | added | {"pool": pool}


@dataclass(frozen=True)
class LayerCounts:
    """What one layer has and does for one crop, over both towers; tower_*: in each of them.

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
