"""What a network is made of: kernels, sizes, parameters, neurons and multiply-accumulates of every layer, and in all."""

from dataclasses import dataclass
from math import prod

from alexnet.model import Layer, ModelConfig, table


@dataclass(frozen=True)
class Count:
    """One layer's numbers, over both towers. neurons: outputs of the layer before pooling, as the paper counts them."""

    name: str
    kernels: int
    size_px: int
    out_px: int
    weights: int
    biases: int
    neurons: int
    macs: int

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
    return Count(
        name=row.name,
        kernels=row.outputs,
        size_px=row.size_px,
        out_px=row.out_px,
        weights=weights,
        biases=row.outputs,
        neurons=row.outputs * places,
        macs=weights * places,
    )


def total(layers: tuple[Count, ...]) -> Count:
    """The sums over all layers, under the name `total`."""
    sums = {name: sum(getattr(layer, name) for layer in layers) for name in ("kernels", "weights", "biases", "neurons", "macs")}
    return Count(name="total", size_px=0, out_px=0, **sums)
