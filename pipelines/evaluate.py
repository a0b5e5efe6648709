"""The evaluate stage: errors, log loss and calibration by the center crop and by many, beside baselines; pictures."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from alexnet.config import to_json
from alexnet.files.atomic import atomic_folder, atomic_write_bytes
from alexnet.images.statistics import PixelStatistics
from alexnet.inference.metrics import VIEWS_NAMES, Baseline, Metrics
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.config import Views
from alexnet.loading.dataset import ShardDataset
from alexnet.shards.manifest import Manifest, Split
from pipelines.config import params
from pipelines.evaluation import inference, measure, results, tables, throughput, trained
from pipelines.evaluation.baselines import Batch, majority_error, ridge_errors
from pipelines.evaluation.config import EvaluateConfig
from pipelines.evaluation.ensemble import open_ensemble, pull
from pipelines.evaluation.predictions import predict
from pipelines.pictures.evaluation import Evaluated, draw_all
from pipelines.pictures.explain.subject import Training
from pipelines.runtime import console, environment
from pipelines.storage.dataset import open_dataset


def evaluate(
    model_path: Path, manifest_path: Path, pixels_path: Path, history_path: Path, metrics_path: Path, evaluation_path: Path
) -> None:
    """Evaluates a network on the test split, or where there is none on validation. Outputs are written whole or not at all."""
    given = params.load()
    config, manifest = given.evaluate, Manifest.read(manifest_path)
    model = inference.open_model(model_path, manifest)
    split = inference.report_split(manifest)
    samples = open_dataset(manifest, split)
    protocols = given.train.augment.protocols
    start = time.monotonic()
    predictions = predict(model, samples, protocols, config.batch_size, config.precision)
    _write_throughput(len(samples) / (time.monotonic() - start), model, samples, protocols, config)
    ensemble = None
    if names := config.ensemble.models:
        members = open_ensemble([model_path, *map(pull, names)], config.ensemble.weights, manifest)
        ensemble = predict(members, samples, protocols, config.batch_size, config.precision)
    baselines = _baselines(manifest, config)
    data = (manifest_path, pixels_path)
    beside = baselines[split] | {name: _variant_error(name, samples, manifest, data) for name in config.baselines}
    found = measure.measure(predictions, manifest, split, beside, ensemble)
    rows = {name: Baseline(error) for name, error in beside.items()}
    metrics = Metrics(split, measure.scores(found.center_crop), measure.scores(found.many_crops), rows)
    training = Training(given.train.augment, PixelStatistics.read(pixels_path))
    with atomic_folder(evaluation_path) as folder:
        predictions.write(folder / "predictions.parquet", manifest.synsets)
        if ensemble:
            ensemble.write(folder / "ensemble.parquet", manifest.synsets)
        (folder / results.NAME).write_bytes(to_json(found))
        tables.write_all(folder, predictions, manifest.synsets)
        tables.write_curves(folder / "curves.csv", history_path, baselines["val"])
        ridge_error = baselines["val"]["ridge"]
        draw_all(folder, Evaluated(model, samples, found.split_name, predictions, history_path, ridge_error, training))
    atomic_write_bytes(metrics_path, to_json(metrics))
    errors = ", ".join(f"{VIEWS_NAMES[row.views]} {row.top1_error.value:.2%}" for row in found.protocols)
    console.say(
        f"evaluate: {found.split_name} top-1 error by {errors} (ridge on thumbnails {found.ridge.value:.2%}, "
        f"majority {found.majority.value:.2%}); top-5 error {found.center_crop.top5_error.value:.2%}"
    )


def _write_throughput(
    rate: float, model: Pretrained, samples: ShardDataset, protocols: Sequence[Views], config: EvaluateConfig
) -> None:
    chosen = np.arange(min(len(samples), config.batch_size))
    (batch,) = inference.load_chosen(samples, chosen, config.batch_size, "evaluate: throughput", model.device)
    rates = throughput.measure(model.at(config.precision), batch.images, protocols, config.batch_size)
    found = results.Throughput(environment.machine(), config.precision, rate, rates)
    atomic_write_bytes(results.THROUGHPUT, to_json(found))
    console.say(f"evaluate: {len(samples):,} images, {found.text}")


def _variant_error(variant: str, samples: ShardDataset, manifest: Manifest, data: tuple[Path, Path]) -> float:
    """Top-1 error by the center crop of a variant of this run, trained here."""
    given = params.load(variant=variant)
    recipe = {"seed": given.seed, "filter": given.shard.filter, "model": asdict(given.model), "train": asdict(given.train)}
    model = inference.open_model(trained.train(variant, recipe, data), manifest)
    found = predict(model, samples, ["center"], given.evaluate.batch_size, given.evaluate.precision)
    return measure.measure_protocols(found)[0].top1_error.value


def _baselines(manifest: Manifest, config: EvaluateConfig) -> dict[Split, dict[str, float]]:
    """On the validation split, beside which the training's curves are drawn, and on the one that is reported."""

    def batches(split: Split) -> Iterator[Batch]:
        samples = open_dataset(manifest, split)
        for batch in inference.load_batches(samples, config.batch_size, f"evaluate: baselines, {split}"):
            yield batch.images.numpy(), batch.labels.numpy()

    judged = {split: batches(split) for split in ("val", inference.report_split(manifest))}
    errors = ridge_errors(batches("train"), judged, len(manifest.synsets), config.thumbnail_px, config.ridge_alpha)
    return {split: {"ridge": error, "majority": majority_error(manifest, split)} for split, error in errors.items()}


if __name__ == "__main__":
    console.run_on_paths(
        "evaluate",
        evaluate,
        model="folder of the trained network",
        manifest="the shards to evaluate on",
        pixels="NPZ of pixel statistics, for the pictures of augmentation",
        history="CSV of the training, for its curves",
        metrics="JSON to write: the scores",
        evaluation="folder to write: predictions, tables, pictures",
    )
