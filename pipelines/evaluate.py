"""The evaluate stage: error rates of the center crop and of ten crops, two baselines beside them, and pictures."""

import argparse
import csv
from collections.abc import Iterator
from dataclasses import astuple
from pathlib import Path

import numpy as np

from alexnet.config import to_json
from alexnet.files.atomic import atomic_folder, atomic_write_bytes
from alexnet.inference.metrics import Baseline, Baselines, Metrics, error_rates_by_class
from alexnet.loading.config import Views
from alexnet.loading.dataset import ShardDataset
from alexnet.shards.manifest import Manifest, Split, Synset
from pipelines.config import params
from pipelines.evaluation import baselines, inference
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.predictions import Predictions, predict
from pipelines.pictures.evaluation import Evaluated, draw_all
from pipelines.runtime import console
from pipelines.storage.dataset import open_dataset


def main() -> None:
    """Reads the arguments and evaluates."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained network")
    parser.add_argument("--manifest", type=Path, required=True, help="the shards to evaluate on")
    parser.add_argument("--history", type=Path, required=True, help="CSV of the training, for its curves")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON to write: the error rates")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder to write: predictions, tables, pictures")
    args = parser.parse_args()
    evaluate(args.model, args.manifest, args.history, args.metrics, args.evaluation)


def evaluate(model_path: Path, manifest_path: Path, history_path: Path, metrics_path: Path, evaluation_path: Path) -> None:
    """Evaluates a network on the validation split. Each output is written whole or not at all."""
    config = params.load().evaluate
    manifest = Manifest.read(manifest_path)
    model = inference.open_model(model_path, manifest)
    samples = open_dataset(manifest, "val")
    predictions = predict(model, samples, config.batch_size)
    metrics = Metrics(
        center_crop=predictions.error_rates("center"),
        ten_crop=predictions.error_rates("ten"),
        baselines=_baselines(manifest, samples, config),
        images=len(predictions.labels),
        classes=len(manifest.synsets),
    )
    with atomic_folder(evaluation_path) as folder:
        predictions.write(folder / "predictions.parquet")
        _write_per_class(predictions, manifest.synsets, folder / "per_class.csv")
        _write_confusion(predictions, manifest.synsets, metrics.best_views, folder / "confusion.csv")
        draw_all(folder, Evaluated(model, samples, predictions, history_path, metrics.baselines.ridge.top1_error))
    atomic_write_bytes(metrics_path, to_json(metrics))
    ten, center, base = metrics.ten_crop, metrics.center_crop, metrics.baselines
    console.say(
        f"evaluate: top-1 error {ten.top1_error:.2%} by ten crops, {center.top1_error:.2%} by the center crop "
        f"(ridge on thumbnails {base.ridge.top1_error:.2%}, majority {base.majority.top1_error:.2%}); "
        f"top-5 error {ten.top5_error:.2%}"
    )


def _write_per_class(predictions: Predictions, synsets: tuple[Synset, ...], path: Path) -> None:
    """CSV, a row a class: its number of images and its error rates by both protocols."""
    center, ten = (error_rates_by_class(top, predictions.labels, len(synsets)) for top in predictions.topk.values())
    images = np.bincount(predictions.labels, minlength=len(synsets))
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [f"{views}_{name}" for views in ("center", "ten") for name in ("top1_error", "top5_error")]
        writer.writerow(["label", "wnid", "name", "images", *names])
        for synset, count, one, other in zip(synsets, images, center, ten, strict=True):
            writer.writerow([*astuple(synset), count, *astuple(one), *astuple(other)])


def _write_confusion(predictions: Predictions, synsets: tuple[Synset, ...], views: Views, path: Path) -> None:
    """CSV, a row an image: the names of its class and of the predicted class, as DVC's confusion plot reads them."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        for label, predicted in zip(predictions.labels, predictions.topk[views].labels[:, 0], strict=True):
            writer.writerow([synsets[label].name, synsets[predicted].name])


def _baselines(manifest: Manifest, val: ShardDataset, config: EvaluateConfig) -> Baselines:
    def batches(split: Split, samples: ShardDataset) -> Iterator[tuple[baselines.Images, baselines.Labels]]:
        for batch in inference.load_batches(samples, config.batch_size, f"evaluate: baselines, {split}"):
            yield batch.images.numpy(), batch.labels.numpy()

    error = baselines.ridge_error(
        batches("train", open_dataset(manifest, "train")),
        batches("val", val),
        len(manifest.synsets),
        config.thumbnail_px,
        config.ridge_alpha,
    )
    return Baselines(Baseline(baselines.majority_error(manifest)), Baseline(error))


if __name__ == "__main__":
    console.run("evaluate", main)
