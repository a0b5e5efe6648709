"""The configuration of evaluate. Knows no torch, so that reading params.yaml does not import it."""

from dataclasses import dataclass


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
