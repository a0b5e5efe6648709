"""The architecture's table and its variants."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from alexnet.describe import counts
from alexnet.model import ModelConfig, table
from pipelines import params


def leaves(tree: dict[str, Any], path: str = "") -> dict[str, object]:
    """Every leaf by its path."""
    found: dict[str, object] = {}
    for name, value in tree.items():
        found |= leaves(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


CHANGES = {
    "tanh": {"model.nonlinearity"},
    "one-tower": {"model.towers", "model.kernels", "model.units"},
    "no-lrn": {"model.lrn.layers", "model.map_norm.layers"},
    "non-overlapping-pool": {"model.pool.size", "model.padding.conv2", "model.padding.conv5"},
    "no-crops-no-flips": {"train.augment.crop", "train.augment.flip"},
    "no-color-noise": {"train.augment.color_noise.std"},
    "no-dropout": {"model.dropout"},
    "no-cross-connections": {"model.cross_connections"},
    "six-conv": {"model.kernels"},
    "one-weird-trick": {"model.towers", "model.kernels", "model.units"},
    "paper-text": {
        "model.conv1_order",
        "model.lrn.alpha_over",
        "model.map_norm.layers",
        "model.init.middle_std",
        "train.schedule.weights",
        "train.schedule.biases",
        "train.schedule.conv1",
        "train.schedule.stall.drops",
        "train.augment.crop_offsets",
        "train.augment.crop_run",
        "train.augment.color_noise.along",
        "train.augment.color_noise.divide",
        "train.augment.color_noise.end_epoch",
    },
}


@pytest.mark.parametrize("variant", CHANGES)
def test_a_variant_changes_exactly_what_it_says(variant: str) -> None:
    base = leaves(asdict(params.load(preset="imagenet")))
    varied = leaves(asdict(params.load(preset="imagenet", variant=variant)))
    assert base.keys() == varied.keys()
    assert {path for path in base if base[path] != varied[path]} == CHANGES[variant]


def test_every_variant_is_tested_and_builds_at_both_widths() -> None:
    from pipelines import tree

    assert set(tree.read(params.FILE)["variants"]) == set(CHANGES)
    for variant in CHANGES:
        for preset in (None, "imagenet"):
            assert counts(params.load(preset=preset, variant=variant).model)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": 1}, "classes: must be at least 2, got 1"),
        ({"towers": 3}, "towers: must be 1 or 2, got 3"),
        ({"kernels": (1, 2)}, "kernels: must be 5 or 6 counts"),
        ({"dropout": 1.0}, r"dropout: must be in \[0, 1\), got 1.0"),
        ({"cross_connections": ("fc7",)}, "cross_connections: must have fc8"),
        ({"cross_connections": ("fc8", "conv9")}, "cross_connections: no such layer: conv9; layers: conv1"),
    ],
)
def test_an_impossible_architecture_is_refused(tiny: ModelConfig, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny, **change)  # type: ignore[arg-type]  # a partial tree of fields


def test_a_kernel_larger_than_its_input_is_refused_by_name(tiny: ModelConfig) -> None:
    with pytest.raises(ValueError, match="conv1: a 224-pixel input leaves"):
        table(replace(tiny, conv1=replace(tiny.conv1, size=300)))


def test_even_norm_sizes_are_refused(tiny: ModelConfig) -> None:
    with pytest.raises(ValueError, match="norms must have odd sizes"):
        replace(tiny, lrn=replace(tiny.lrn, size=4))
