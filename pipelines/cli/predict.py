"""The best classes of image files, by a model folder: prepared as the images it was trained on were."""

from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import UnidentifiedImageError

from alexnet.errors import DataError
from alexnet.images.inspect import FORMATS, open_image
from alexnet.images.resize import prepare
from alexnet.inference.metrics import TOP, Metrics, topk
from alexnet.inference.pretrained import load_pretrained
from alexnet.loading.config import Views

_MOST_PIXELS = 89_000_000  # decoded, some 270 MB


@dataclass(frozen=True)
class Guess:
    """A class and its probability."""

    label: int
    wnid: str
    name: str
    probability: float


class Predictor:
    """A model that names what is in a picture.

    Args:
        folder: The model's: trained here, or pulled.
        views: The center crop, or ten crops; None takes whichever erred less on the validation images, if the folder says.
    """

    def __init__(self, folder: Path, views: Views | None = None) -> None:
        self._model = load_pretrained(folder)
        self.views: Views = views or best_views(folder)

    def guesses(self, path: Path, count: int = TOP) -> list[Guess]:
        """The best classes of the picture in a file, the best first. Raises DataError if there is no picture in it."""
        how, synsets = self._model.config.preprocessing, self._model.config.synsets
        pixels = torch.from_numpy(prepare(read_picture(path), how.side_px, how.filter).copy())[None]
        best = topk(self._model.probabilities(pixels, self.views).cpu().numpy(), count)
        return [
            Guess(int(label), synsets[label].wnid, synsets[label].name, float(probability))
            for label, probability in zip(best.labels[0], best.probabilities[0], strict=True)
        ]


def read_picture(path: Path) -> bytes:
    """The bytes of a file that decodes whole, of whatever format. Raises DataError that names the file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}") from None
    try:
        with open_image(data) as image:
            if image.width * image.height > _MOST_PIXELS:
                raise DataError(f"{path}: {image.width:,} x {image.height:,} pixels are too many; at most {_MOST_PIXELS:,}")
            image.load()
    except DataError:
        raise
    except Exception as error:  # noqa: BLE001  # Pillow lets through whatever its parsers meet
        why = " ".join(str(error).split())[:80]
        what = (
            "an empty file" if not data else "not an image" if isinstance(error, UnidentifiedImageError) else f"damaged: {why}"
        )
        raise DataError(f"{path}: {what}; allowed: {', '.join(FORMATS)}") from None
    return data


def best_views(folder: Path) -> Views:
    """The protocol with the lower error by the folder's metrics.json; ten crops, the paper's, if it has no such file."""
    path = folder / "metrics.json"
    return Metrics.read(path).best_views if path.is_file() else "ten"
