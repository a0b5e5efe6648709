"""A trained network on disk: read back as it was written, or refused by name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alexnet.errors import DataError, ParamsError
from alexnet.inference.pretrained import CONFIG, WEIGHTS, Model, load_model, save_model
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import AlexNet, initial_weights
from alexnet.shards.manifest import Synset


@pytest.fixture
def model(tiny: ModelConfig) -> Model:
    network = AlexNet(tiny)
    network.load_full(initial_weights(tiny, seed=1))
    synsets = tuple(Synset(label, f"n{label:08d}", f"class {label}") for label in range(tiny.classes))
    return Model(network, tiny, synsets, 256, torch.full((256, 256, 3), 120.0))


def save(folder: Path, model: Model) -> Path:
    save_model(folder, model, initial_weights(model.config, seed=1))
    return folder


def images(count: int) -> torch.Tensor:
    return torch.randint(0, 256, (count, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))


def test_a_model_reads_back_as_it_was(model: Model, tmp_path: Path) -> None:
    read = load_model(save(tmp_path / "model", model))
    assert (read.config, read.synsets, read.side_px) == (model.config, model.synsets, model.side_px)
    assert torch.allclose(read.probabilities(images(2), "ten"), model.probabilities(images(2), "ten"), atol=1e-6)


def test_equal_models_are_equal_bytes(model: Model, tmp_path: Path) -> None:
    first, second = save(tmp_path / "a", model), save(tmp_path / "b", model)
    for name in (WEIGHTS, CONFIG):
        assert (first / name).read_bytes() == (second / name).read_bytes()


def test_ten_crops_average_probabilities_not_logits(model: Model) -> None:
    batch = images(1)
    found = model.probabilities(batch, "ten")
    corners = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    views = [batch[:, y : y + 224, x : x + 224] for y, x in corners]
    crops = [(view.float() - 120).permute(0, 3, 1, 2) for plain in views for view in (plain, plain.flip(2))]
    with torch.no_grad():
        expected = torch.stack([model.network(crop).softmax(1) for crop in crops]).mean(0)
    assert torch.allclose(found, expected, atol=1e-6)
    assert found.sum().item() == pytest.approx(1)


def test_features_are_the_layers_outputs_a_row_an_image(model: Model) -> None:
    assert model.features(images(3), "fc7").shape == (3, 32)
    assert model.features(images(3), "conv5").shape == (3, 16 * 36)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_missing_or_damaged_file_is_named(model: Model, tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / "model", model)
    (folder / name).write_bytes((folder / name).read_bytes()[:-20])
    with pytest.raises(DataError, match="damaged: .*; pull or train the model again"):
        load_model(folder)
    (folder / name).unlink()
    with pytest.raises(DataError, match=f"{name}: no such file; a model is a folder with"):
        load_model(folder)


def test_weights_of_another_architecture_are_refused(model: Model, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", model)
    config = json.loads((folder / CONFIG).read_text())
    config["model"]["kernels"] = [4, 8, 8, 8, 8, 8]
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match="not the layers of config.json"):
        load_model(folder)
    config["model"] |= {"kernels": [4, 8, 8, 8, 8], "units": 17}
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises(DataError, match=r"fc6.weight: has shape"):
        load_model(folder)


def test_a_misspelt_key_of_the_configuration_is_refused(model: Model, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", replace(model))
    config = json.loads((folder / CONFIG).read_text())
    config["model"]["dropuot"] = config["model"].pop("dropout")
    (folder / CONFIG).write_text(json.dumps(config))
    with pytest.raises((ParamsError, DataError), match="unknown dropuot"):
        load_model(folder)
