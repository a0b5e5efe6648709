"""The configurations of probe and extract. Knows no torch, so that reading params.yaml does not import it."""

from dataclasses import dataclass
from typing import Literal

from alexnet.shards.manifest import Split


@dataclass(frozen=True)
class ProbeConfig:
    """How much of a network's features is looked at.

    batch_size: images per forward pass.
    numbers: of a layer, the most that its probe reads; convolutions are averaged over squares of pixels until it is that few.
    ridge_alpha: the factor of the squared weights that is added to the squared error of standardized numbers.
    neighbors: training images that are found for each query.
    queries: of the images of the reported split, the first so many get neighbors.
    """

    batch_size: int
    numbers: int
    ridge_alpha: float
    neighbors: int
    queries: int

    def __post_init__(self) -> None:
        for name in ("batch_size", "numbers", "neighbors", "queries"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: must be at least 1, got {getattr(self, name)}")
        if self.ridge_alpha <= 0:
            raise ValueError(f"ridge_alpha: must be above 0, got {self.ridge_alpha}")


@dataclass(frozen=True)
class ExtractConfig:
    """The points of the network whose values are written (`alexnet.model.points`), for which splits, and in which type.

    batch_size: images per forward pass.
    """

    points: tuple[str, ...]
    splits: tuple[Split, ...]
    dtype: Literal["float16", "float32"]
    batch_size: int

    def __post_init__(self) -> None:
        for name, given in (("points", self.points), ("splits", self.splits)):
            if not given or len(set(given)) != len(given):
                raise ValueError(f"{name}: must name at least one, and each once, got {', '.join(given) or 'none'}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: must be at least 1, got {self.batch_size}")
