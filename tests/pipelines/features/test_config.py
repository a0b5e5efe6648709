"""The configurations of probe and extract refuse what makes no sense."""

import pytest

from pipelines.features.config import ExtractConfig, ProbeConfig


@pytest.mark.parametrize("place", range(4))
def test_what_is_wrong_in_the_configuration_is_named(place: int) -> None:
    fields = [1, 1, 1.0, 1, 1]
    number = place + (place > 1)
    fields[number] = 0
    name = ("batch_size", "numbers", "", "neighbors", "queries")[number]
    with pytest.raises(ValueError, match=f"{name}: must be at least 1, got 0"):
        ProbeConfig(*fields)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"ridge_alpha: must be above 0, got 0\.0"):
        ProbeConfig(1, 1, 0.0, 1, 1)


def test_what_is_extracted_is_named_once() -> None:
    with pytest.raises(ValueError, match="points: must name at least one, and each once, got none"):
        ExtractConfig((), ("val",), "float16", 1)
    with pytest.raises(ValueError, match="splits: must name at least one, and each once, got val, val"):
        ExtractConfig(("fc7",), ("val", "val"), "float16", 1)
    with pytest.raises(ValueError, match="batch_size: must be at least 1, got 0"):
        ExtractConfig(("fc7",), ("val",), "float16", 0)
