"""What a network is made of: kernels, sizes, parameters, neurons and multiply-accumulates of every layer, and in all."""

from dataclasses import dataclass, fields
from math import prod

from alexnet.model.architecture import Layer, ModelConfig, table


@dataclass(frozen=True)
class Count:
    """One layer's numbers, over both towers; tower_*: of each of them.

    neurons: outputs of the layer before pooling, as the paper counts them. fc8 belongs to the whole network, as in 2012 all of
    its classes were on one GPU: its tower_* are 0.
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


def counts(config: ModelConfig) -> tuple[Count, ...]:
    """Every layer's numbers for one 224x224 crop."""
    return tuple(_count(row, config.towers) for row in table(config))


def _count(row: Layer, towers: int) -> Count:
    weights = prod(row.weight_shape(towers))
    places = row.size_px**2
    share = 0 if row.name == "fc8" else 1
    return Count(
        name=row.name,
        kernels=row.outputs,
        size_px=row.size_px,
        out_px=row.out_px,
        weights=weights,
        biases=row.outputs,
        neurons=row.outputs * places,
        macs=weights * places,
        tower_kernels=share * row.outputs // towers,
        tower_parameters=share * (weights + row.outputs) // towers,
        tower_macs=share * weights * places // towers,
    )


def total(layers: tuple[Count, ...]) -> Count:
    """The sums over all layers, under the name `total`."""
    names = [field.name for field in fields(Count) if field.name not in ("name", "size_px", "out_px")]
    return Count("total", size_px=0, out_px=0, **{name: sum(getattr(layer, name) for layer in layers) for name in names})
