"""Exported networks: onnxruntime and torch.export give the classes that torch gives, and the files hold nothing else."""

import dataclasses
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from sklearn.datasets import load_sample_images

from alexnet.inference.pretrained import Preprocessing, Pretrained, PretrainedConfig, load_pretrained, save_pretrained
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import initial_weights
from alexnet.shards.manifest import Synset
from pipelines.cli import main as cli
from pipelines.config import params
from pipelines.publishing.export import export
from tests.support.stage_folder import PARAMS

Run = Callable[[torch.Tensor], np.ndarray]
KERNELS = (4, 8, 8, 8, 8, 8)


def photographs(count: int) -> torch.Tensor:
    """Crops of two photographs, at other places each, on the 0-255 scale."""
    draw, photos = np.random.default_rng(1), load_sample_images().images
    crops = []
    for number in range(count):
        top, left = draw.integers(0, 427 - 224), draw.integers(0, 640 - 224)
        crops.append(photos[number % 2][top : top + 224, left : left + 224])
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float()


def make(folder: Path, config: ModelConfig) -> Pretrained:
    """A network of random weights, four times as far apart as they start, and no biases, so that the answer is the image's."""
    synsets = tuple(Synset(label, f"n{label}", f"class {label}") for label in range(config.classes))
    weights = {name: 4 * tensor if tensor.dim() > 1 else 0 * tensor for name, tensor in initial_weights(config, seed=3).items()}
    mean = torch.full((256, 256, 3), 110.0)
    save_pretrained(folder, PretrainedConfig(config, synsets, Preprocessing(256, "triangle")), weights, mean)
    return load_pretrained(folder)


def check(model: Pretrained, folder: Path, images: torch.Tensor) -> None:
    """Both files give the network's five best classes, by any number of images."""
    with torch.inference_mode():
        expected = model.network.eval()(images - model.mean_crop.permute(2, 0, 1)).numpy()
    best = np.argsort(-expected)[:, :5]
    assert np.ptp(expected, 0).max() > 0.01 * np.abs(expected).max()  # the answer depends on the image
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    program = torch.export.load(folder / "model.pt2").module()  # made here a moment ago
    runs: list[Run] = [lambda x: session.run(None, {"images": x.numpy()})[0], lambda x: program(x).numpy()]
    for run in runs:
        found = np.concatenate([run(images[:1]), run(images[1:])])
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
        np.testing.assert_array_equal(np.argsort(-found)[:, :5], best)


@pytest.mark.slow
def test_exported_files_answer_as_torch_does_and_hold_no_pickle(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped form: two towers in one program, both norms, on 100 crops of photographs."""
    model = make(tmp_path / "model", dataclasses.replace(params.load(PARAMS).model, kernels=KERNELS[:5], units=16))
    assert cli.main(["export", str(tmp_path / "model"), str(tmp_path / "out"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["opset"] == 18
    check(model, tmp_path / "out", photographs(100))
    graph = onnx.load(tmp_path / "out/model.onnx")
    assert {each.domain: each.version for each in graph.opset_import} == {"": 18}
    assert graph.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "n"
    assert json.loads(graph.metadata_props[0].value) == json.loads((tmp_path / "model/config.json").read_text())
    assert str(PARAMS.parent).encode() not in (tmp_path / "out/model.onnx").read_bytes()
    with zipfile.ZipFile(tmp_path / "out/model.pt2") as archive:
        assert [
            each.filename for each in archive.infolist() if each.filename.endswith((".pt", ".pkl")) and each.file_size
        ] == []
        assert not any(b"torch._utils" in archive.read(name) for name in archive.namelist())
        assert str(PARAMS.parent).encode() not in archive.read(_program(archive))


def _program(archive: zipfile.ZipFile) -> str:
    (name,) = [name for name in archive.namelist() if name.endswith("models/model.json")]
    return name


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["one-tower", "no-lrn", "paper-text", "tanh", "six-conv", "torchvision", "no-cross-connections", "relu-first"]
)
def test_every_kind_of_network_can_be_exported(tmp_path: Path, variant: str) -> None:
    config = params.load(PARAMS, variant=variant).model
    model = make(tmp_path / "model", dataclasses.replace(config, kernels=KERNELS[: len(config.kernels)], units=16))
    assert [path.name for path in export(tmp_path / "model", tmp_path, {"pt2", "onnx"})] == ["model.onnx", "model.pt2"]
    check(model, tmp_path, photographs(10))


def test_what_is_no_model_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["export", str(tmp_path), str(tmp_path / "out")]) == 1
    assert "no such file; a model is a folder with" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
