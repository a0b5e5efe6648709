"""A trained network for photographs: image files in, classes or features out."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import UnidentifiedImageError
from torch import Tensor

from alexnet.errors import DataError
from alexnet.files.strict import read_bytes
from alexnet.images.container import is_baseline_jpeg
from alexnet.images.inspect import FORMATS, open_image
from alexnet.images.resize import orientation_of, prepare
from alexnet.inference.activations import center_activations
from alexnet.inference.pretrained import Pretrained, load_pretrained
from alexnet.inference.ranking import topk
from alexnet.inference.references import fetch, is_reference
from alexnet.loading.config import Views
from alexnet.model.points import check_points

_MAX_BYTES = 1 << 28  # of an image file
_MAX_PIXELS = 89_000_000  # 270 MB decoded
Photo = str | Path | bytes  # an image file, or its bytes


@dataclass(frozen=True)
class Prediction:
    """A class and its probability."""

    label: int
    wnid: str
    name: str
    probability: float


@dataclass(frozen=True)
class Classifier(Pretrained):
    """A trained network with its preprocessing."""

    def prepare(self, photos: Sequence[Photo]) -> UInt8[Tensor, "n side side 3"]:
        """The photographs as the training images were prepared. Raises DataError that names one that does not decode."""
        return torch.stack([torch.from_numpy(self._prepare(read_photo(photo)).copy()) for photo in photos])

    def _prepare(self, data: bytes) -> UInt8[np.ndarray, "side side 3"]:
        how = self.config.preprocessing
        return prepare(data, how.side_px, how.filter, orientation_of(data) if how.exif_orientation == "applied" else 1)

    def predict(self, photos: Sequence[Photo], views: Views = "center") -> list[list[Prediction]]:
        """The five most probable classes of every photograph, most probable first, in one batch. Raises as `prepare`."""
        top = topk(self.probabilities(self.prepare(photos), views))
        return [
            [
                Prediction(**asdict(self.config.synsets[label]), probability=float(probability))
                for label, probability in zip(labels, probabilities, strict=True)
            ]
            for labels, probabilities in zip(top.labels, top.probabilities, strict=True)
        ]

    def activations(self, photos: Sequence[Photo], points: Sequence[str]) -> dict[str, Float[Tensor, "n ..."]]:
        """The values at points of the network, such as `fc7.relu`, for the center crop of every photograph, on the CPU.

        Raises:
            DataError: a photograph does not decode, or there is no such point; lists those that there are.
        """
        try:
            check_points(self.network.config, tuple(points))
        except ValueError as error:
            raise DataError(str(error)) from None
        found = center_activations(self, self.prepare(photos), points)
        return {name: values.float().cpu() for name, values in found.items()}


def load(model: str | Path) -> Classifier:
    """The trained network in a folder, or of a release that is fetched and checked first, on the CPU.

    With ALEXNET_VERIFY_KEY set to a public key's file, only a release that it has signed is loaded, from a folder too.

    Args:
        model: a folder; or `NAME@ALIAS`, `NAME@VERSION`, s3://BUCKET/NAME@ALIAS, s3://BUCKET/NAME/versions/VERSION.

    Raises:
        DataError: there is no such folder or release, or something of it is damaged.
    """
    folder = fetch(str(model)) if is_reference(model) or os.environ.get("ALEXNET_VERIFY_KEY") else Path(model)
    found = load_pretrained(folder)
    return Classifier(found.network, found.config, found.mean_image)


def read_photo(photo: Photo) -> bytes:
    """The bytes of an image file, which has been decoded once to see that it is whole. Raises DataError that names the file."""
    where = "the image" if isinstance(photo, bytes) else photo
    try:
        data = photo if isinstance(photo, bytes) else read_bytes(Path(photo), _MAX_BYTES)
    except OSError as error:
        raise DataError(f"{where}: {error.strerror}") from None
    if not is_baseline_jpeg(data):
        raise DataError(f"{where}: a JPEG that is lossless or of 12 bits, which is not read; make it one of 8 bits")
    try:
        with open_image(data) as image:
            if image.mode == "F":
                raise DataError(f"{where}: its pixels are fractions, and nothing says which is white; make it one of 8 bits")
            if image.width * image.height > _MAX_PIXELS:
                raise DataError(f"{where}: {image.width:,} x {image.height:,} pixels are too many; at most {_MAX_PIXELS:,}")
            image.load()
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001  # Pillow lets through any exception of its parsers
        why = " ".join(str(error).split())[:80]
        what = (
            "an empty file" if not data else "not an image" if isinstance(error, UnidentifiedImageError) else f"damaged: {why}"
        )
        raise DataError(f"{where}: {what}; allowed: {', '.join(FORMATS)}") from None
    return data
