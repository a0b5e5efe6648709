"""A trained network on disk: read back as it was written, or refused by name."""

import json
from pathlib import Path

import pytest
import torch

from alexnet.errors import DataError
from alexnet.inference.pretrained import (
    CONFIG,
    WEIGHTS,
    Preprocessing,
    Pretrained,
    PretrainedConfig,
    load_pretrained,
    save_pretrained,
)
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
    config["preprocessing"]["exif_orientation"] = "applied"
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"preprocessing\.exif_orientation: must be one of ignored, got 'applied'"):
        load_pretrained(folder)


def test_a_config_of_before_preprocessing_was_recorded_is_read_with_the_default_filter(
    model: Pretrained, tmp_path: Path
) -> None:
    folder = save(tmp_path / "model", model)
    config = json.loads((folder / CONFIG).read_text())
    del config["preprocessing"]
    (folder / CONFIG).write_text(json.dumps(config | {"side_px": 240, "input": "RGB, 0-255"}))
    assert load_pretrained(folder).config.preprocessing == Preprocessing(240, "triangle")
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"config\.json: missing preprocessing; pull or train the model again"):
        load_pretrained(folder)
