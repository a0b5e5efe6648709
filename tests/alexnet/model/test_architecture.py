"""The architecture's table and its variants."""

import json
from dataclasses import asdict, replace
from typing import Any

import pytest

from alexnet.config import build
from alexnet.model.architecture import CONVOLUTIONS, ModelConfig, current_model, layer_counts, table
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
    "tanh": {"model.nonlinearity": "tanh", "extract.points": ("fc7.tanh",)},
    "one-tower": {"model.towers": 1, "model.kernels": (48, 128, 192, 192, 256), "model.units": 4096},
    "no-lrn": {"model.lrn.layers": (), "model.map_norm.layers": ()},
    "non-overlapping-pool": {"model.pool.size": 2, "model.conv2.padding": 1, "model.conv5.padding": 0},
    "no-crops-no-flips": {"train.augment.crop": "center", "train.augment.flip": False},
    "no-color-noise": {"train.augment.color_noise.std": 0.0},
    "no-dropout": {"model.dropout": 0.0},
    "no-cross-connections": {"model.cross_connections": ("fc8",)},
    "no-conv3": {"model.without": ("conv3",), "model.cross_connections": ("conv4", "conv6", "fc6", "fc7", "fc8")},
    "no-conv4": {"model.without": ("conv4",)},
    "six-conv": {"model.kernels": (48, 128, 192, 192, 128, 128)},
    "one-weird-trick": {"model.towers": 1, "model.kernels": (64, 192, 384, 256, 256), "model.units": 4096},
    "tanh-no-dropout": {"model.nonlinearity": "tanh", "model.dropout": 0.0, "extract.points": ("fc7.tanh",)},
    "color-noise": {},  # the preset has it
    "text-init": {"model.init.middle_std": 0.01},
    "relu-first": {"model.conv1_order": "relu-norm-pool"},
    "torchvision": {
        "model.towers": 1,
        "model.kernels": (64, 192, 384, 256, 256),
        "model.units": 4096,
        "model.conv1.padding": 2,
        "model.conv1.edge": 0,
        "model.lrn.layers": (),
        "model.map_norm.layers": (),
        "model.dropout_layers": ("conv5", "fc6"),
        "model.dropout_inverted": True,
        "model.init.ones": (),
        "model.init.middle_std": 0.02,
    },
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
        ({"kernels": ()}, "kernels: must be 1 to 6 counts"),
        ({"without": ("fc7", "fc8")}, "without: must name layers of conv2, .*, fc7; got fc8"),
        ({"dropout_layers": ("fc8", "conv1")}, "dropout_layers: must name layers of conv1, .*, fc7; got fc8"),
        ({"dropout": 1.0}, r"dropout: must be in \[0, 1\), got 1.0"),
        ({"cross_connections": ("fc7",)}, "cross_connections: must have fc8"),
        ({"cross_connections": ("fc8", "conv9")}, "cross_connections: must name layers of conv1, .*, fc8; got conv9"),
    ],
)
def test_an_impossible_architecture_is_refused(tiny: ModelConfig, change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(tiny, **change)  # type: ignore[arg-type]  # a partial tree of fields


def test_a_kernel_larger_than_its_input_is_refused_by_name(tiny: ModelConfig) -> None:
    with pytest.raises(ValueError, match="conv1: a 224-pixel input leaves"):
        table(replace(tiny, conv1=replace(tiny.conv1, size=300)))


def test_a_shape_that_cannot_be_is_refused(tiny: ModelConfig) -> None:
    with pytest.raises(ValueError, match="size: must be at least 1, as stride; .* got .*stride=0"):
        replace(tiny.conv2, stride=0)
    with pytest.raises(ValueError, match="stride: must be from 1 to size, got 4 with size 3"):
        replace(tiny.pool, stride=4)


def test_without_a_middle_layer_the_next_reads_the_one_before(tiny: ModelConfig) -> None:
    rows = {row.name: row for row in table(replace(tiny, without=("conv3", "fc7")))}
    assert list(rows) == ["conv1", "conv2", "conv4", "conv5", "fc6", "fc8"]
    assert (rows["conv4"].inputs, rows["fc8"].inputs) == (rows["conv2"].outputs, rows["fc6"].outputs)


def test_figure_1s_network_has_four_layers_and_reads_32_pixels(four_layer: ModelConfig) -> None:
    rows = [(row.name, row.weight_shape(1), row.size_px, row.out_px) for row in table(four_layer)]
    assert rows == [
        ("conv1", (4, 3, 5, 5), 32, 16),
        ("conv2", (6, 4, 5, 5), 16, 8),
        ("conv3", (8, 6, 5, 5), 8, 4),
        ("fc8", (10, 8 * 4 * 4), 1, 1),
    ]


def test_a_tree_of_before_every_layer_had_its_row_means_what_it_did(paper: ModelConfig) -> None:
    tree = json.loads(json.dumps(asdict(paper)))
    for name in (*CONVOLUTIONS[1:], "input_px", "without", "dropout_layers", "dropout_inverted"):
        del tree[name]
    del tree["pool"]["layers"], tree["conv1"]["padding"]
    assert build(ModelConfig, current_model({**tree, "padding": {"conv2": 2, "conv5": 1}}), "model") == paper
    other = build(ModelConfig, current_model({**tree, "padding": {"conv2": 1, "conv5": 0}}), "model")
    assert other == replace(paper, conv2=replace(paper.conv2, padding=1), conv5=replace(paper.conv5, padding=0))
    assert current_model(asdict(paper)) == asdict(paper)


def test_even_norm_sizes_are_refused(tiny: ModelConfig) -> None:
    with pytest.raises(ValueError, match="norms must have odd sizes"):
        replace(tiny, lrn=replace(tiny.lrn, size=4))


def test_a_norm_or_pooling_that_no_layer_would_have_is_refused(tiny: ModelConfig) -> None:
    """Of a fully connected layer it would be left out without a word."""
    for path in ("pool", "lrn", "map_norm"):
        with pytest.raises(ValueError, match=rf"{path}\.layers: must name layers of conv1, .*, conv6; got fc6"):
            replace(tiny, **{path: replace(getattr(tiny, path), layers=("conv1", "fc6"))})
