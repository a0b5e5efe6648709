"""The output of any layer, for any split."""

from dataclasses import dataclass
from math import prod

from alexnet.errors import ParamsError
from alexnet.model.architecture import LAYERS, ModelConfig, table
from alexnet.shards.manifest import Split


@dataclass(frozen=True)
class ExtractConfig:
    """Which layer's output is kept, for which split, and images per forward pass."""

    layer: str
    split: Split
    batch_size: int

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise ValueError(f"layer: must be one of {', '.join(LAYERS)}, got {self.layer!r}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: must be at least 1, got {self.batch_size}")


def width(config: ModelConfig, layer: str) -> int:
    """How many numbers a layer gives for an image; a convolution's are channel by channel, each row by row, after pooling.

    Raises:
        ParamsError: the network has no such layer.
    """
    for row in table(config):
        if row.name == layer:
            return prod((row.outputs, row.out_px, row.out_px))
    raise ParamsError(f"extract.layer: this network has no {layer}; it has {', '.join(row.name for row in table(config))}")
