"""The transform that a release carries, against the project's own preparation of the same files."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from alexnet.images.resize import prepare
from alexnet.inference import transforms
from alexnet.inference.pretrained import Preprocessing, PretrainedConfig, save_pretrained
from alexnet.loading.augment import center_crop
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import initial_weights
from alexnet.shards.manifest import Synset

MEAN = torch.rand(256, 256, 3, generator=torch.Generator().manual_seed(1)) * 255


def save(folder: Path, config: ModelConfig, how: Preprocessing) -> Path:
    synsets = tuple(Synset(label, str(label), str(label)) for label in range(config.classes))
    save_pretrained(folder, PretrainedConfig(config, synsets, how), initial_weights(config, 1), MEAN)
    return folder


def file_of(size: tuple[int, int], mode: str, form: str) -> bytes:
    """A smooth picture with noise, as an image file."""
    noise = np.random.default_rng(1).integers(0, 256, (24, 18, 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)
    image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
    out = io.BytesIO()
    image.save(out, form)
    return out.getvalue()


@pytest.mark.parametrize(
    ("size", "mode", "form"),
    [
        ((300, 401), "RGB", "JPEG"),
        ((1501, 1203), "RGB", "JPEG"),  # decoded at half its size
        ((120, 90), "RGB", "PNG"),
        ((301, 300), "RGBA", "PNG"),
        ((256, 256), "L", "PNG"),
        ((300, 280), "CMYK", "JPEG"),
        ((300, 280), "I;16", "PNG"),
        ((3000, 2800), "RGB", "BMP"),  # shrunk before it is resized
    ],
)
def test_the_transform_is_the_preparation_to_one_level_of_256(
    size: tuple[int, int], mode: str, form: str, tiny: ModelConfig, tmp_path: Path
) -> None:
    """Two implementations of one filter: at most a level apart, and equal in nine pixels of ten or more."""
    data = file_of(size, mode, form)
    transform = transforms.make(save(tmp_path, tiny, Preprocessing(256, "triangle")))
    assert isinstance(transform, v2.Compose)
    found: Tensor = transform(Image.open(io.BytesIO(data)))
    square = torch.from_numpy(prepare(data, 256, "triangle").copy())[None]
    expected = center_crop(square, MEAN[16:240, 16:240])[0]
    difference = (found - expected).abs()
    assert found.shape == (3, 224, 224)
    assert difference.max() < 1.001
    assert (difference > 0.5).float().mean() < 0.15


def test_the_area_filter_and_other_sizes_are_followed_too(tiny: ModelConfig, tmp_path: Path) -> None:
    data = file_of((300, 401), "RGB", "PNG")
    found = transforms.CenterCrop(64, 33, "area")(Image.open(io.BytesIO(data)))
    expected = prepare(data, 64, "area")[15:48, 15:48]
    assert np.abs(np.asarray(found).astype(int) - expected).mean() < 0.1


def test_the_file_works_alone(tiny: ModelConfig, tmp_path: Path) -> None:
    """As it lies in a release: without this project on the path."""
    save(tmp_path, tiny, Preprocessing(256, "triangle"))
    (tmp_path / "transforms.py").write_bytes(Path(transforms.__file__).read_bytes())
    code = "import sys, transforms, pathlib; transforms.make(pathlib.Path('.')); print('alexnet' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("orientation", [1, 2, 5, 6, 7, 8])
@pytest.mark.parametrize("how", ["ignored", "applied"])
def test_a_picture_is_turned_as_the_training_images_were(form: str, orientation: int, how: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(io.BytesIO(file_of((90, 70), "RGB", "PNG"))) as image:
        out = io.BytesIO()
        image.save(out, form, **({"tiffinfo": exif} if form == "TIFF" else {"exif": exif}))
    crop = transforms.CenterCrop(64, 48, "triangle", upright=how == "applied")
    with Image.open(io.BytesIO(out.getvalue())) as image:
        found = np.asarray(crop(image)).astype(int)
    expected = prepare(out.getvalue(), 64, "triangle", orientation if how == "applied" else 1)[8:56, 8:56]
    assert np.abs(found - expected).mean() < 2
