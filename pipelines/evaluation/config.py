"""The configuration of evaluate. Knows no torch, so that reading params.yaml does not import it."""

from dataclasses import dataclass

from alexnet.loading.config import Precision
from pipelines.registry.release import is_version


@dataclass(frozen=True)
class EnsembleConfig:
    """Released networks whose probabilities are averaged with the trained one's. weights: its own, then theirs; none: equal."""

    models: tuple[str, ...]
    weights: tuple[float, ...]

    def __post_init__(self) -> None:
        for model in self.models:
            if not is_version(model.partition("@")[2]):
                raise ValueError(
                    f"models: must be NAME@VERSION, which never changes, got {model!r}; `alexnet releases` names them"
                )


@dataclass(frozen=True)
class EvaluateConfig:
    """batch_size: crops per forward pass. baselines: variants that are trained under the same budget, to stand beside ridge.

    thumbnail_px, ridge_alpha: of the ridge regression, the side of its thumbnails, and its regularization.
    """

    batch_size: int
    precision: Precision
    ensemble: EnsembleConfig
    baselines: tuple[str, ...]
    thumbnail_px: int
    ridge_alpha: float

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size: must be at least 1, got {self.batch_size}")
        if len(set(self.baselines)) != len(self.baselines):
            raise ValueError(f"baselines: must name each variant once, got {', '.join(self.baselines)}")
        if self.thumbnail_px < 1:
            raise ValueError(f"thumbnail_px: must be at least 1, got {self.thumbnail_px}")
        if self.ridge_alpha <= 0:
            raise ValueError(f"ridge_alpha: must be above 0, got {self.ridge_alpha}")
