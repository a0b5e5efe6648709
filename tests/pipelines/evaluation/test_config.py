"""The configuration of evaluate refuses what makes no sense."""

import pytest

from pipelines.evaluation.config import EnsembleConfig, EvaluateConfig


def test_what_is_wrong_in_the_configuration_is_named() -> None:
    alone = EnsembleConfig((), ())
    for batch_size, thumbnail_px, ridge_alpha, text in (
        (0, 16, 1.0, "batch_size: must be at least 1, got 0"),
        (1, 0, 1.0, "thumbnail_px: must be at least 1, got 0"),
        (1, 16, 0.0, "ridge_alpha: must be above 0, got 0.0"),
    ):
        with pytest.raises(ValueError, match=text):
            EvaluateConfig(batch_size, "float32", alone, (), thumbnail_px, ridge_alpha)
    with pytest.raises(ValueError, match="baselines: must name each variant once, got tanh, tanh"):
        EvaluateConfig(1, "float32", alone, ("tanh", "tanh"), 16, 1.0)
    with pytest.raises(ValueError, match="models: must be NAME@VERSION, which never changes, got 'alexnet@latest'"):
        EnsembleConfig(("alexnet@latest",), ())
