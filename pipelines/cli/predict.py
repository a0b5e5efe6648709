"""Predictions of a trained network for image files, which are prepared as its config.json says."""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from PIL import UnidentifiedImageError

from alexnet.errors import DataError
from alexnet.images.inspect import FORMATS, open_image
from alexnet.images.resize import prepare
from alexnet.inference.pretrained import Pretrained
from alexnet.inference.ranking import topk
from alexnet.loading.config import Views

_MAX_PIXELS = 89_000_000  # 270 MB decoded


@dataclass(frozen=True)
class Prediction:
    """A class and its probability."""

    label: int
    wnid: str
    name: str
    probability: float


def predict(model: Pretrained, path: Path, views: Views) -> list[Prediction]:
    """The five most probable classes of the image in a file, most probable first.

    Raises:
        DataError: the file holds no image that can be decoded.
    """
    how, synsets = model.config.preprocessing, model.config.synsets
    pixels = torch.from_numpy(prepare(read_image(path), how.side_px, how.filter).copy())[None]
    top = topk(model.probabilities(pixels, views))
    return [
        Prediction(**asdict(synsets[label]), probability=float(probability))
        for label, probability in zip(top.labels[0], top.probabilities[0], strict=True)
    ]


def read_image(path: Path) -> bytes:
    """The bytes of an image file, which has been decoded once to see that it is whole. Raises DataError that names the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    try:
        with open_image(data) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise DataError(f"{path}: {image.width:,} x {image.height:,} pixels are too many; at most {_MAX_PIXELS:,}")
            image.load()
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001  # Pillow lets through any exception of its parsers
        why = " ".join(str(error).split())[:80]
        what = (
            "an empty file" if not data else "not an image" if isinstance(error, UnidentifiedImageError) else f"damaged: {why}"
        )
        raise DataError(f"{path}: {what}; allowed: {', '.join(FORMATS)}") from None
    return data
