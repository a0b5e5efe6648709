"""The evaluate stage: errors, log loss and calibration by the center crop and by many, beside two baselines; pictures."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

from alexnet.config import to_json
from alexnet.files.atomic import atomic_folder, atomic_write_bytes
from alexnet.images.statistics import PixelStatistics
from alexnet.inference.metrics import VIEWS_NAMES, Baseline, Baselines, Metrics
from alexnet.loading.dataset import ShardDataset
from alexnet.shards.manifest import Manifest, Split
from pipelines.config import params
from pipelines.evaluation import inference, measure, results, tables
from pipelines.evaluation.baselines import Images, Labels, majority_error, ridge_error
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.ensemble import open_ensemble, pull
from pipelines.evaluation.predictions import predict
from pipelines.pictures.evaluation import Evaluated, draw_all
from pipelines.pictures.explain.subject import Training
from pipelines.runtime import console
from pipelines.storage.dataset import open_dataset


def main() -> None:
    """Reads the arguments and evaluates."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained network")
    parser.add_argument("--manifest", type=Path, required=True, help="the shards to evaluate on")
    parser.add_argument("--pixels", type=Path, required=True, help="NPZ of pixel statistics, for the pictures of augmentation")
    parser.add_argument("--history", type=Path, required=True, help="CSV of the training, for its curves")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON to write: the scores")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder to write: predictions, tables, pictures")
    args = parser.parse_args()
    evaluate(args.model, args.manifest, args.pixels, args.history, args.metrics, args.evaluation)


def evaluate(
    model_path: Path, manifest_path: Path, pixels_path: Path, history_path: Path, metrics_path: Path, evaluation_path: Path
) -> None:
    """Evaluates a network on the validation split. Each output is written whole or not at all."""
    given = params.load()
    config, manifest = given.evaluate, Manifest.read(manifest_path)
    model = inference.open_model(model_path, manifest, config.precision)
    samples = open_dataset(manifest, "val")
    protocols = given.train.augment.protocols
    start = time.monotonic()
    predictions = predict(model, samples, protocols, config.batch_size)
    rate = len(samples) / (time.monotonic() - start)
    console.say(f"evaluate: {len(samples):,} images by ten crops, {rate:,.1f} images/s")
    ensemble = None
    if names := config.ensemble.models:
        members = open_ensemble([model_path, *map(pull, names)], config.ensemble.weights, manifest, config.precision)
        ensemble = predict(members, samples, protocols, config.batch_size)
    baselines = _baselines(manifest, samples, config)
    found = measure.measure(predictions, manifest, "val", baselines, ensemble)
    metrics = Metrics(measure.scores(found.center_crop), measure.scores(found.many_crops), baselines)
    training = Training(given.train.augment, PixelStatistics.read(pixels_path))
    with atomic_folder(evaluation_path) as folder:
        predictions.write(folder / "predictions.parquet", manifest.synsets)
        if ensemble:
            ensemble.write(folder / "ensemble.parquet", manifest.synsets)
        (folder / results.NAME).write_bytes(to_json(found))
        tables.write_all(folder, predictions, manifest.synsets)
        tables.write_curves(folder / "curves.csv", history_path, baselines)
        draw_all(folder, Evaluated(model, samples, predictions, history_path, baselines.ridge.top1_error, training))
    atomic_write_bytes(metrics_path, to_json(metrics))
    errors = ", ".join(f"{VIEWS_NAMES[row.views]} {row.top1_error.value:.2%}" for row in found.protocols)
    console.say(
        f"evaluate: top-1 error by {errors} (ridge on thumbnails {baselines.ridge.top1_error:.2%}, "
        f"majority {baselines.majority.top1_error:.2%}); top-5 error {found.center_crop.top5_error.value:.2%}"
    )


def _baselines(manifest: Manifest, val: ShardDataset, config: EvaluateConfig) -> Baselines:
    def batches(split: Split, samples: ShardDataset) -> Iterator[tuple[Images, Labels]]:
        for batch in inference.load_batches(samples, config.batch_size, f"evaluate: baselines, {split}"):
            yield batch.images.numpy(), batch.labels.numpy()

    error = ridge_error(
        batches("train", open_dataset(manifest, "train")),
        batches("val", val),
        len(manifest.synsets),
        config.thumbnail_px,
        config.ridge_alpha,
    )
    return Baselines(Baseline(majority_error(manifest)), Baseline(error))


if __name__ == "__main__":
    console.run("evaluate", main)
