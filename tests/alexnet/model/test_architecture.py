"""The architecture's table and its variants."""

from dataclasses import asdict, replace
from typing import Any

import pytest

from alexnet.model.architecture import ModelConfig, layer_counts, table
from pipelines.config import params


def leaves(tree: dict[str, Any], path: str = "") -> dict[str, object]:
    """Every leaf by its path."""
    found: dict[str, object] = {}
    for name, value in tree.items():
        found |= leaves(value, f"{path}{name}.") if isinstance(value, dict) else {f"{path}{name}": value}
    return found


def rates(*pairs: tuple[int, float]) -> tuple[dict[str, float], ...]:
    """A schedule as it stands among the leaves."""
    return tuple({"epoch": epoch, "lr": lr} for epoch, lr in pairs)


CHANGES: dict[str, dict[str, object]] = {
    "tanh": {"model.nonlinearity": "tanh"},
    "one-tower": {"model.towers": 1, "model.kernels": (48, 128, 192, 192, 256), "model.units": 4096},
    "no-lrn": {"model.lrn.layers": (), "model.map_norm.layers": ()},
    "non-overlapping-pool": {"model.pool.size": 2, "model.padding.conv2": 1, "model.padding.conv5": 0},
    "no-crops-no-flips": {"train.augment.crop": "center", "train.augment.flip": False},
    "no-color-noise": {"train.augment.color_noise.std": 0.0},
    "no-dropout": {"model.dropout": 0.0},
    "no-cross-connections": {"model.cross_connections": ("fc8",)},
    "six-conv": {"model.kernels": (48, 128, 192, 192, 128, 128)},
    "one-weird-trick": {"model.towers": 1, "model.kernels": (64, 192, 384, 256, 256), "model.units": 4096},
    "run-145": {
        "train.epochs": 91,
        "train.schedule.weights": rates((0, 0.01), (25, 0.001), (51, 0.0001), (79, 0.00001)),
        "train.schedule.biases": rates((0, 0.02)),
        "train.schedule.conv1": rates((67, 0.00001), (72, 0.0)),
        "train.augment.color_noise.end_epoch": 67,
    },
    "paper-text": {
        "model.conv1_order": "relu-norm-pool",
        "model.lrn.alpha_over": "sum",
        "model.map_norm.layers": (),
        "model.init.middle_std": 0.01,
        "train.epochs": 90,
        "train.schedule.weights": rates((0, 0.01)),
        "train.schedule.biases": rates((0, 0.01)),
        "train.schedule.conv1": (),
        "train.schedule.stall.drops": 3,
        "train.augment.crop_offsets": 32,
        "train.augment.crop_run": 1,
        "train.augment.color_noise.along": "variance",
        "train.augment.color_noise.divide": 1.0,
        "train.augment.color_noise.end_epoch": None,
    },
}


@pytest.mark.parametrize("variant", CHANGES)
def test_a_variant_changes_exactly_what_it_says(variant: str) -> None:
    base = leaves(asdict(params.load(preset="imagenet")))
    varied = leaves(asdict(params.load(preset="imagenet", variant=variant)))
    assert base.keys() == varied.keys()
    assert {path: varied[path] for path in base if base[path] != varied[path]} == CHANGES[variant]


def test_every_variant_is_tested_and_builds_at_both_widths() -> None:
    from pipelines.config import tree

    assert set(tree.read(params.FILE)["variants"]) == set(CHANGES)
    for variant in CHANGES:
        for preset in (None, "imagenet"):
            assert layer_counts(params.load(preset=preset, variant=variant).model)


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
