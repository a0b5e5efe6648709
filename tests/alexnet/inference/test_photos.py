"""A network on image files: prepared as in training, refused by name."""

import io
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import alexnet
from alexnet.errors import DataError
from alexnet.images.resize import prepare
from alexnet.inference.photos import Classifier, read_photo
from alexnet.inference.pretrained import Preprocessing, PretrainedConfig, save_pretrained
from alexnet.loading.augment import center_crop
from alexnet.model.architecture import ModelConfig
from alexnet.model.network import initial_weights
from alexnet.shards.manifest import Synset


def jpeg(seed: int, size: tuple[int, int] = (320, 280)) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (5, 6, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).resize(size).save(file, "JPEG")
    return file.getvalue()


@pytest.fixture
def folder(tiny: ModelConfig, tmp_path: Path) -> Path:
    synsets = tuple(Synset(label, f"n{label:08d}", f"class {label}") for label in range(tiny.classes))
    config = PretrainedConfig(tiny, synsets, Preprocessing(256, "area"))
    save_pretrained(tmp_path / "model", config, initial_weights(tiny, seed=1), torch.full((256, 256, 3), 120.0))
    return tmp_path / "model"


@pytest.fixture
def model(folder: Path) -> Classifier:
    return alexnet.load(str(folder))


def test_three_lines_name_what_is_in_a_photograph(model: Classifier, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(jpeg(1))
    by_path, by_bytes = model.predict([tmp_path / "photo.jpg", jpeg(1)])
    assert by_path == by_bytes
    pixels = torch.from_numpy(prepare(jpeg(1), 256, "area").copy())[None]
    expected = model.probabilities(pixels, "center")[0]
    assert by_path[0].label == int(expected.argmax())
    assert by_path[0].name == f"class {by_path[0].label}"
    assert [each.probability for each in by_path] == pytest.approx(sorted(expected.tolist(), reverse=True)[:5], abs=1e-6)


def test_a_photograph_is_turned_where_the_training_images_were(model: Classifier) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(jpeg(1))) as image:
        file = io.BytesIO()
        image.save(file, "JPEG", exif=exif)
    upright = replace(model, config=replace(model.config, preprocessing=Preprocessing(256, "area", "applied")))
    stored, meant = model.prepare([file.getvalue()])[0], upright.prepare([file.getvalue()])[0]
    assert torch.equal(meant, stored.transpose(0, 1).flip(1))


def test_a_batch_is_its_photographs_one_by_one(model: Classifier) -> None:
    photos = [jpeg(seed, (250 + 20 * seed, 300)) for seed in range(3)]
    together, alone = model.predict(photos, "ten"), [model.predict([photo], "ten")[0] for photo in photos]
    for found, expected in zip(together, alone, strict=True):
        assert [each.label for each in found] == [each.label for each in expected]
        assert [each.probability for each in found] == pytest.approx([each.probability for each in expected], abs=1e-5)


def test_activations_are_the_networks_own(model: Classifier) -> None:
    found = model.activations([jpeg(1), jpeg(2)], ["conv5.pool", "fc7.dropout"])
    crops = center_crop(model.prepare([jpeg(1), jpeg(2)]), model.mean_crop)
    assert torch.allclose(found["fc7.dropout"], model.network(crops, upto="fc7"), atol=1e-5)
    assert found["conv5.pool"].shape[::2] == (2, 6)
    with pytest.raises(DataError, match=r"no point fc9; this network has conv1, "):
        model.activations([jpeg(1)], ["fc9"])


def fractions() -> bytes:
    file = io.BytesIO()
    Image.new("F", (9, 9)).save(file, "TIFF")
    return file.getvalue()


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: b"", "file: an empty file; allowed: JPEG, PNG"),
        (lambda: b"plain text", "file: not an image; allowed: JPEG, PNG"),
        (lambda: jpeg(1).replace(b"\xff\xc0\0\x11\x08", b"\xff\xc1\0\x11\x0c"), "file: a JPEG that is lossless or of 12 bits"),
        (
            fractions,
            "file: its pixels are fractions, .*; make it one of 8 bits",
        ),
        (lambda: jpeg(1)[:-200], "file: damaged: .*truncated"),
    ],
)
def test_a_file_without_a_picture_is_named(tmp_path: Path, make: Callable[[], bytes], text: str) -> None:
    (tmp_path / "file").write_bytes(make())
    with pytest.raises(DataError, match=text):
        read_photo(tmp_path / "file")
    with pytest.raises(DataError, match=text.replace("file", "the image", 1)):
        read_photo(make())


def test_a_missing_file_a_folder_and_a_huge_picture_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing.jpg: No such file or directory"):
        read_photo(tmp_path / "nothing.jpg")
    with pytest.raises(DataError, match="Is a directory"):
        read_photo(tmp_path)
    Image.new("1", (9500, 9500)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match="9,500 x 9,500 pixels are too many; at most 89,000,000"):
        read_photo(tmp_path / "bomb.png")


def test_what_has_no_end_is_no_photograph(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "photo.jpg")
    for place in (tmp_path / "photo.jpg", Path("/dev/zero")):
        with pytest.raises(DataError, match="is a pipe, a device or a socket"):
            read_photo(place)
    with (tmp_path / "sparse.png").open("wb") as file:
        file.truncate(20 << 30)
    with pytest.raises(DataError, match="has 21,474,836,480 bytes; at most"):
        read_photo(tmp_path / "sparse.png")
