"""The pictures of an evaluation, all of them."""

from dataclasses import dataclass
from pathlib import Path

from alexnet.inference.metrics import VIEWS_NAMES, calibration, confusion_matrix
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.config import Views
from alexnet.loading.dataset import ShardDataset
from pipelines.evaluation.predictions import Predictions
from pipelines.pictures.calibration import draw_reliability
from pipelines.pictures.confusion import draw_confusion
from pipelines.pictures.curves import draw_curves
from pipelines.pictures.kernels import draw_kernels
from pipelines.pictures.predictions import Shown, choose, confident_mistakes, draw_predictions

_VIEWS: Views = "center"  # the protocol of every picture: the lead number's, chosen before anything was measured


@dataclass(frozen=True)
class Evaluated:
    """A network, the split it was evaluated on, its predictions, its training's history, the ridge baseline's top-1 error."""

    model: Pretrained
    samples: ShardDataset
    predictions: Predictions
    history: Path
    ridge_error: float | None


def draw_all(folder: Path, evaluated: Evaluated) -> None:
    """Every picture, as PNG and SVG."""
    model, predictions = evaluated.model, evaluated.predictions
    names, top = [synset.name for synset in model.config.synsets], predictions.topk[_VIEWS]
    draw_curves(folder / "curves", evaluated.history, evaluated.ridge_error)
    weight = next(tensor for name, _, tensor in model.network.parameter_slices() if name == "conv1.weight")
    draw_kernels(folder / "kernels", weight, model.config.model.towers, model.mean_image.cpu())
    shown = Shown(evaluated.samples, top, predictions.labels, names)
    draw_predictions(
        folder / "predictions",
        shown,
        choose(predictions.keys, top, predictions.labels),
        "What the network says of eight images",
    )
    if mistakes := confident_mistakes(top, predictions.labels):
        draw_predictions(folder / "mistakes", shown, mistakes, "The mistakes of which it was most sure")
    matrix = confusion_matrix(top.labels[:, 0], predictions.labels, len(names))
    draw_confusion(folder / "confusion", matrix, names, VIEWS_NAMES[_VIEWS])
    draw_reliability(folder / "reliability", calibration(top, predictions.ranks[_VIEWS]))
