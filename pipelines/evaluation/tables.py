"""The tables of an evaluation, as CSV: errors by class, confusions, calibration, and the most confident mistakes."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from alexnet.inference.metrics import BINS, TOP, calibration, errors_by_class
from alexnet.shards.manifest import Synset
from pipelines.evaluation.predictions import Predictions

_MISTAKES = 100
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "'")  # what a formula starts with, and what marks a name that does


def write_all(folder: Path, predictions: Predictions, synsets: Sequence[Synset]) -> None:
    """Writes every table; those of single images are by the center crop."""
    _write(folder / "per_class.csv", _per_class(predictions, synsets))
    _write(folder / "confusion.csv", _confusion(predictions, synsets))
    _write(folder / "calibration.csv", _calibration(predictions))
    _write(folder / "mistakes.csv", _mistakes(predictions, synsets))


def write_curves(path: Path, history: Path, errors: Mapping[str, float]) -> None:
    """The history, epochs counted from 1, and the baselines' errors on validation beside it, as DVC's line plots read them."""
    with history.open(encoding="utf-8", newline="") as file:
        (epoch, *header), *rows = csv.reader(file)
    _write(path, [[epoch, *header, *errors], *([int(number) + 1, *row, *errors.values()] for number, *row in rows)])


def _per_class(predictions: Predictions, synsets: Sequence[Synset]) -> Iterable[Sequence[object]]:
    """A row a class: its number of images and its error rates by every protocol."""
    labels, count = predictions.labels, len(synsets)
    columns = {
        f"{views}_top{k}_error": errors_by_class(ranks, labels, count, k)
        for views, ranks in predictions.ranks.items()
        for k in (1, TOP)
    }
    yield ["label", "wnid", "name", "images", *columns]
    for synset, *numbers in zip(synsets, np.bincount(labels, minlength=count), *columns.values(), strict=True):
        yield [*astuple(synset), *numbers]


def _confusion(predictions: Predictions, synsets: Sequence[Synset]) -> Iterable[Sequence[object]]:
    """A row an image: the names of its class and of the predicted class, as DVC's confusion plot reads them."""
    yield ["actual", "predicted"]
    for label, predicted in zip(predictions.labels, predictions.topk["center"].labels[:, 0], strict=True):
        yield [synsets[label].name, synsets[predicted].name]


def _calibration(predictions: Predictions) -> Iterable[Sequence[object]]:
    """A row a protocol and bin of confidence: its images, their mean confidence, and the share of them that is right."""
    yield ["views", "from", "to", "images", "confidence", "accuracy"]
    for views, top in predictions.topk.items():
        curve = calibration(top, predictions.ranks[views])
        for number, row in enumerate(zip(*astuple(curve), strict=True)):
            yield [views, number / BINS, (number + 1) / BINS, *row]


def _mistakes(predictions: Predictions, synsets: Sequence[Synset]) -> Iterable[Sequence[object]]:
    """A row a mistake, most confident first: the image, its class and the predicted class with their probabilities."""
    top, own = predictions.topk["center"], predictions.ranks["center"].probability
    guesses, confidence = top.labels[:, 0], top.probabilities[:, 0]
    wrong = np.flatnonzero(guesses != predictions.labels)
    yield ["key", "name", "probability", "predicted", "predicted_probability"]
    for at in wrong[np.argsort(-confidence[wrong], kind="stable")][:_MISTAKES]:
        names = [synsets[label].name for label in (predictions.labels[at], guesses[at])]
        yield [predictions.keys[at], names[0], own[at], names[1], confidence[at]]


def as_text(cell: object) -> object:
    """A cell that spreadsheets show as it is: before a name that they would take for a formula stands an apostrophe."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _write(path: Path, rows: Iterable[Sequence[object]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(map(as_text, row) for row in rows)
