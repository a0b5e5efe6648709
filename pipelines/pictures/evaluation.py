"""The pictures of an evaluation, all of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from alexnet.files.atomic import atomic_write_bytes
from alexnet.inference.metrics import VIEWS_NAMES, calibration, confusion_matrix
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.config import Views
from alexnet.loading.dataset import ShardDataset
from pipelines.evaluation.predictions import Predictions
from pipelines.pictures.architecture import render_architecture
from pipelines.pictures.calibration import draw_reliability
from pipelines.pictures.confusion import draw_confusion
from pipelines.pictures.curves import draw_curves
from pipelines.pictures.explain.page import write_explanation
from pipelines.pictures.explain.subject import Subject, Training
from pipelines.pictures.kernels import draw_kernels
from pipelines.pictures.predictions import Chosen, Shown, choose, confident_mistakes, draw_predictions, pixels

_VIEWS: Views = "center"  # the protocol of every picture: the lead number's, chosen before anything was measured


@dataclass(frozen=True)
class Evaluated:
    """A network, the split it was evaluated on, and its predictions; what else is known of its training and of the baseline.

    split: its name for people. history: CSV of the epochs. ridge_error: the top-1 error of the ridge baseline on validation.
    training: what was done to pictures.
    """

    model: Pretrained
    samples: ShardDataset
    split: str
    predictions: Predictions
    history: Path
    ridge_error: float | None
    training: Training


def draw_all(folder: Path, evaluated: Evaluated) -> None:
    """Every picture, as PNG and SVG."""
    model, predictions = evaluated.model, evaluated.predictions
    names, top = [synset.name for synset in model.config.synsets], predictions.topk[_VIEWS]
    draw_curves(folder / "curves", evaluated.history, evaluated.ridge_error)
    weight = next(tensor for name, _, tensor in model.network.parameter_slices() if name == "conv1.weight")
    draw_kernels(folder / "kernels", weight, model.config.model.towers, model.mean_image.cpu())
    shown = Shown(evaluated.samples, evaluated.split, top, predictions.labels, names)
    chosen = choose(predictions.keys, top, predictions.labels)
    draw_predictions(folder / "predictions", shown, chosen, "What the network says of eight images")
    _explain(folder, evaluated, chosen)
    if mistakes := confident_mistakes(top, predictions.labels):
        draw_predictions(folder / "mistakes", shown, mistakes, "The mistakes of which it was most sure")
    matrix = confusion_matrix(top.labels[:, 0], predictions.labels, len(names))
    draw_confusion(folder / "confusion", matrix, names, VIEWS_NAMES[_VIEWS], evaluated.split)
    for kind, data in render_architecture(model.config.model, "The network").items():
        atomic_write_bytes(folder / f"architecture.{kind}", data)
    draw_reliability(folder / "reliability", calibration(top, predictions.ranks[_VIEWS]), evaluated.split)


def _explain(folder: Path, evaluated: Evaluated, chosen: Sequence[Chosen]) -> None:
    """The first of the chosen images of every kind through the whole network: explained-1, and so on."""
    model, predictions = evaluated.model, evaluated.predictions
    for number, one in enumerate(first_of_each_kind(chosen), 1):
        image = torch.from_numpy(pixels(evaluated.samples, one.at))
        true = model.config.synsets[predictions.labels[one.at]].name
        subject = Subject(image, predictions.keys[one.at], model, f"this network: {one.kind}", evaluated.training, true)
        write_explanation(folder / f"explained-{number}", subject)


def first_of_each_kind(chosen: Sequence[Chosen]) -> list[Chosen]:
    """In their order."""
    return list({one.kind: one for one in reversed(chosen)}.values())[::-1]
