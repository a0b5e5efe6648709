"""The configurations of evaluate and extract. Knows no torch, so that reading params.yaml does not import it."""

from dataclasses import dataclass

from alexnet.model.architecture import LAYERS
from alexnet.shards.manifest import Split


@dataclass(frozen=True)
class EvaluateConfig:
    """Crops per forward pass, and the ridge baseline: the side of its thumbnails in pixels, and its regularization."""

    batch_size: int
    thumbnail_px: int
    ridge_alpha: float

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: must be at least 1, got {self.batch_size}")
        if self.thumbnail_px < 1:
            raise ValueError(f"thumbnail_px: must be at least 1, got {self.thumbnail_px}")
        if self.ridge_alpha <= 0:
            raise ValueError(f"ridge_alpha: must be above 0, got {self.ridge_alpha}")


@dataclass(frozen=True)
class ExtractConfig:
    """The layer whose output is written, the split, and images per forward pass."""

    layer: str
    split: Split
    batch_size: int

    def __post_init__(self) -> None:
        if self.layer not in LAYERS:
            raise ValueError(f"layer: must be one of {', '.join(LAYERS)}, got {self.layer!r}")
        if self.batch_size < 1:
            raise ValueError(f"batch_size: must be at least 1, got {self.batch_size}")
