"""A trained network on disk: read back as it was written, or refused by name."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from alexnet.errors import DataError
from alexnet.files.tensors import write_tensors
from alexnet.inference.activations import activations
from alexnet.inference.pretrained import (
    CONFIG,
    WEIGHTS,
    Preprocessing,
    Pretrained,
    PretrainedConfig,
    load_pretrained,
    save_pretrained,
)
from alexnet.inference.ranking import from_tensors, summarize
from alexnet.loading.augment import center_crop
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import AlexNet, initial_weights
from alexnet.shards.manifest import Synset


@pytest.fixture
def model(tiny: ModelConfig) -> Pretrained:
    network = AlexNet(tiny)
    network.load_full(initial_weights(tiny, seed=1))
    synsets = tuple(Synset(label, f"n{label:08d}", f"class {label}") for label in range(tiny.classes))
    config = PretrainedConfig(tiny, synsets, Preprocessing(256, "area"))
    return Pretrained(network, config, torch.full((256, 256, 3), 120.0))


def save(folder: Path, model: Pretrained) -> Path:
    save_pretrained(folder, model.config, initial_weights(model.config.model, seed=1), model.mean_image)
    return folder


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_a_model_reads_back_as_it_was(model: Pretrained, tmp_path: Path) -> None:
    read = load_pretrained(save(tmp_path / "model", model))
    assert read.config == model.config
    assert torch.equal(read.mean_image, model.mean_image)
    assert read.mean_image.untyped_storage().nbytes() == read.mean_image.nbytes  # none of the mapped file, which is freed
    assert torch.allclose(read.probabilities(images(2), "ten"), model.probabilities(images(2), "ten"), atol=1e-6)


def test_equal_models_are_equal_bytes(model: Pretrained, tmp_path: Path) -> None:
    first, second = save(tmp_path / "a", model), save(tmp_path / "b", model)
    for name in (WEIGHTS, CONFIG):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_ten_crops_average_probabilities_not_logits(model: Pretrained) -> None:
    batch = images(1)
    found = model.probabilities(batch, "ten")
    corners = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    views = [batch[:, y : y + 224, x : x + 224] for y, x in corners]
    crops = [(view.float() - 120).permute(0, 3, 1, 2) for plain in views for view in (plain, plain.flip(2))]
    with torch.no_grad():
        expected = torch.stack([model.network(crop).softmax(1) for crop in crops]).mean(0)
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.sum().item() == pytest.approx(1)


def test_bf16_is_right_by_top_5_where_float32_is(model: Pretrained) -> None:
    """Of a network that has learned: its last layer is fitted, by ridge regression, to classes that noise half hides."""
    drawn, classes, count = torch.Generator().manual_seed(1), model.config.model.classes, 200
    labels = torch.arange(count) % classes
    colors = torch.randint(30, 226, (classes, 1, 1, 3), generator=drawn)
    noise = torch.randint(-30, 31, (count, 16, 16, 3), generator=drawn)
    coarse = (colors[labels] + noise).clamp(0, 255).to(torch.uint8)
    pictures = coarse.repeat_interleave(16, 1).repeat_interleave(16, 2)
    crops = center_crop(pictures, model.mean_crop)
    features = activations(model.network, crops, ["fc7.dropout"])["fc7.dropout"].double()
    centered, wanted = features - features.mean(0), 8.0 * torch.nn.functional.one_hot(labels, classes).double()
    products = centered.T @ centered
    products += 0.1 * products.diagonal().sum() / 16 * torch.eye(len(products))
    fitted = torch.linalg.solve(products, centered.T @ (wanted - wanted.mean(0)))
    weights = {name: parameter for name, _, parameter in model.network.parameter_slices()}
    with torch.no_grad():
        weights["fc8.weight"].copy_(fitted.T)
        weights["fc8.bias"].copy_(wanted.mean(0) - features.mean(0) @ fitted)
    exact, fast = (
        from_tensors([summarize(each.probabilities(pictures, "center"), labels)])[1] for each in (model, model.at("bf16"))
    )
    assert 0.01 < 1 - exact.credit(1).mean() < 0.5
    assert (exact.credit(5) == fast.credit(5)).mean() >= 0.999
    assert (exact.credit(1) == fast.credit(1)).mean() >= 0.98  # that net's best two are often equally good
    assert not (exact.probability == fast.probability).any()


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_missing_or_damaged_file_is_named(model: Pretrained, tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / "model", model)
    (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged: .*; pull or train the model again"):
        load_pretrained(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such file; a model is a folder with"):
        load_pretrained(folder)


def test_weights_of_another_architecture_are_refused(model: Pretrained, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", model)
    config = json.loads((folder / CONFIG).read_text())
    config["model"]["kernels"] = [4, 8, 8, 8, 8, 8]
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match="not the layers of config.json"):
        load_pretrained(folder)
    config["model"] |= {"kernels": [4, 8, 8, 8, 8], "units": 17}
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"fc6.weight: has shape"):
        load_pretrained(folder)


def test_a_misspelt_key_of_the_configuration_is_refused(model: Pretrained, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", model)
    config = json.loads((folder / CONFIG).read_text())
    config["model"]["dropuot"] = config["model"].pop("dropout")
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"config\.json\.model: unknown dropuot; .*; pull or train the model again"):
        load_pretrained(folder)


def test_a_folder_says_everything_that_is_done_to_a_picture(model: Pretrained, tmp_path: Path) -> None:
    config = json.loads((save(tmp_path / "model", model) / CONFIG).read_text())
    assert config["preprocessing"] == {
        "side_px": 256,
        "filter": "area",
        "filter_semantics": "Pillow",
        "exif_orientation": "ignored",
        "channel_order": "RGB",
        "decode_at_least": 2,
        "resize": "shorter side",
        "square": "center",
        "crop_px": 224,
        "value_range": "0-255",
        "subtract": "pixels.mean_image",
        "layout": "NCHW",
    }


def test_a_folder_that_asks_for_what_is_not_done_is_refused(model: Pretrained, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", model)
    config = json.loads((folder / CONFIG).read_text())
    config["preprocessing"]["exif_orientation"] = "guessed"
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"preprocessing\.exif_orientation: must be one of ignored, applied, got 'guessed'"):
        load_pretrained(folder)


def test_a_config_of_before_preprocessing_was_recorded_is_read_with_the_default_filter(
    model: Pretrained, tmp_path: Path
) -> None:
    folder = save(tmp_path / "model", model)
    config = json.loads((folder / CONFIG).read_text())
    del config["preprocessing"]
    (folder / CONFIG).write_text(json.dumps(config | {"side_px": 256, "input": "RGB, 0-255"}))
    assert load_pretrained(folder).config.preprocessing == Preprocessing(256, "triangle")
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"config\.json: missing preprocessing; pull or train the model again"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("model.conv1.stride", 0),
        ("model.conv2.padding", 10**6),
        ("model.lrn.size", -1),
        ("model.lrn.size", 10**6 + 1),
        ("model.map_norm.beta", float("nan")),
        ("model.lrn.k", 0.0),
        ("model.kernels", [10**30] * 5),
        ("model.kernels", [10**6] * 5),
        ("model.units", 1 << 40),
        ("model.input_px", -224),
        ("model.classes", 10**9),
        ("synsets", []),
        *(("preprocessing.side_px", side) for side in ("256", None, 0, True, 10**6, 1e400)),
    ],
)
def test_what_no_network_can_be_is_refused_before_anything_is_made(
    model: Pretrained, tmp_path: Path, path: str, value: object
) -> None:
    folder = save(tmp_path / "model", model)
    tree = config = json.loads((folder / CONFIG).read_text())
    *parents, name = path.split(".")
    for parent in parents:
        tree = tree[parent]
    tree[name] = value
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match="model"):
        load_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("fc8.bias", torch.tensor(0.0), "has shape"),
        ("fc8.bias", torch.full((10,), float("nan")), "not finite"),
        ("fc8.bias", torch.zeros(10, dtype=torch.int32), "torch.int32"),
        ("pixels.mean_image", torch.zeros(8, 8, 3), "has shape"),
        ("fc8.bias", torch.tensor([0.0] * 9 + [-float("inf")]), "not finite"),
        ("pixels.mean_image", torch.full((256, 256, 3), float("inf")), "not finite"),
        (
            "pixels.mean_image",
            torch.zeros(256 * 256 * 3).index_fill(0, torch.tensor(77_777), torch.nan).view(256, 256, 3),
            "not finite",
        ),
        ("other", torch.zeros(1), "not the layers"),
    ],
)
def test_weights_that_are_none_are_refused(
    model: Pretrained, tmp_path: Path, name: str, value: torch.Tensor, message: str
) -> None:
    folder = save(tmp_path / "model", model)

    write_tensors(load_file(folder / WEIGHTS) | {name: value}, folder / WEIGHTS)
    with pytest.raises(DataError, match=message):
        load_pretrained(folder)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_pipe_is_no_model(model: Pretrained, tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / "model", model)
    (folder / name).unlink()
    os.mkfifo(folder / name)
    with pytest.raises(DataError, match="is a pipe"):
        load_pretrained(folder)
