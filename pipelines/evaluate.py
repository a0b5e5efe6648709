"""The evaluate stage: error rates of the center crop and of ten crops, two baselines beside them, and pictures."""

import argparse
import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from alexnet.files.atomic import atomic_write_bytes
from alexnet.inference import metrics as scores
from alexnet.inference.pretrained import Model
from alexnet.loading.dataset import Samples
from alexnet.shards.manifest import Manifest, Split
from pipelines.config import params
from pipelines.evaluation import baselines, inference, plots
from pipelines.evaluation.outcome import Outcome
from pipelines.runtime import console
from pipelines.storage.dataset import open_samples

_CENTER_VIEW = 8  # of ten_crops: the center, not flipped


def main() -> None:
    """Reads the arguments and evaluates."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.evaluate", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained network")
    parser.add_argument("--manifest", type=Path, required=True, help="the shards to evaluate on")
    parser.add_argument("--history", type=Path, required=True, help="CSV of the training, for its curves")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON to write: the error rates")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder to make: predictions, tables, pictures")
    args = parser.parse_args()
    evaluate(args.model, args.manifest, args.history, args.metrics, args.evaluation)


def evaluate(model_path: Path, manifest_path: Path, history_path: Path, metrics_path: Path, folder: Path) -> None:
    """Evaluates a network on the validation split. Both outputs appear whole."""
    config = params.load().evaluate
    manifest = Manifest.read(manifest_path)
    model = inference.open_model(model_path, manifest)
    samples = open_samples(manifest, "val")
    outcome = judge(model, samples, config.batch_size)
    metrics = {
        **outcome.errors(),
        "baselines": _baselines(manifest, samples, config),
        "images": len(outcome.labels),
        "classes": len(manifest.synsets),
    }
    beside = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    write_predictions(outcome, beside / "predictions.parquet")
    write_tables(outcome, manifest, beside)
    plots.draw_all(beside, model, samples, outcome, metrics, history_path)
    shutil.rmtree(folder, ignore_errors=True)
    beside.replace(folder)
    atomic_write_bytes(metrics_path, (json.dumps(metrics, indent=1, sort_keys=True) + "\n").encode())
    console.say(summary(metrics))


def center_and_ten(
    model: Model, images: UInt8[Tensor, "n side side 3"]
) -> tuple[Float[Tensor, "n classes"], Float[Tensor, "n classes"]]:
    """Probabilities by the center crop and by ten crops, of which the center crop is one."""
    by_view = model.by_view(images, "ten")
    by_center, by_ten = torch.stack([by_view[_CENTER_VIEW], by_view.mean(0)]).cpu()  # one copy, for which the host waits
    return by_center, by_ten


def judge(model: Model, samples: Samples, batch_size: int) -> Outcome:
    """The network's best classes for every image; each image is decoded once."""
    keys: list[str] = []
    labels, at_center, of_ten = [], [], []
    for batch in inference.batches(samples, batch_size, "evaluate", model.device):
        by_center, by_ten = center_and_ten(model, batch.images)
        keys += inference.keys_of(samples, batch)
        labels.append(batch.labels.cpu().numpy().copy())
        at_center.append(scores.best(by_center.numpy()))
        of_ten.append(scores.best(by_ten.numpy()))
    return Outcome(keys, np.concatenate(labels), scores.joined(at_center), scores.joined(of_ten))


def write_predictions(outcome: Outcome, path: Path) -> None:
    """A row an image: key, label, and by both protocols the best labels and their probabilities."""
    columns: dict[str, pa.Array] = {"key": pa.array(outcome.keys), "label": pa.array(outcome.labels, pa.int32())}
    for name, best in (("center", outcome.center_crop), ("ten", outcome.ten_crop)):
        count = best.labels.shape[1]
        flat_labels, flat = pa.array(best.labels.ravel(), pa.int32()), pa.array(best.probabilities.ravel(), pa.float32())
        columns[f"{name}_labels"] = pa.FixedSizeListArray.from_arrays(flat_labels, count)
        columns[f"{name}_probabilities"] = pa.FixedSizeListArray.from_arrays(flat, count)
    pq.write_table(pa.table(columns), path, compression="zstd")


def write_tables(outcome: Outcome, manifest: Manifest, folder: Path) -> None:
    """per_class.csv: a row a class. confusion.csv: a row an image, by the better protocol, as DVC's confusion plot reads it."""
    classes = len(manifest.synsets)
    by_center = scores.errors_by_class(outcome.center_crop, outcome.labels, classes)
    by_ten = scores.errors_by_class(outcome.ten_crop, outcome.labels, classes)
    images = np.bincount(outcome.labels, minlength=classes)
    with (folder / "per_class.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        names = [f"{protocol}_{name}" for protocol in ("center", "ten") for name in ("top1_error", "top5_error")]
        writer.writerow(["label", "wnid", "name", "images", *names])
        for synset, count, one, other in zip(manifest.synsets, images, by_center, by_ten, strict=True):
            writer.writerow([*asdict(synset).values(), count, *one.values(), *other.values()])
    names = [synset.name for synset in manifest.synsets]
    with (folder / "confusion.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["actual", "predicted"])
        writer.writerows((names[a], names[p]) for a, p in zip(outcome.labels, outcome.better.labels[:, 0], strict=True))


def summary(metrics: dict[str, object]) -> str:
    """The error rates in one line, in percent."""
    ten, one, base = (metrics[name] for name in ("ten_crop", "center_crop", "baselines"))
    assert isinstance(ten, dict)
    assert isinstance(one, dict)
    assert isinstance(base, dict)
    return (
        f"evaluate: top-1 error {ten['top1_error']:.2%} by ten crops, {one['top1_error']:.2%} by the center crop "
        f"(ridge on thumbnails {base['ridge']['top1_error']:.2%}, majority {base['majority']['top1_error']:.2%}); "
        f"top-5 error {ten['top5_error']:.2%}"
    )


def _baselines(manifest: Manifest, val: Samples, config: scores.EvaluateConfig) -> dict[str, dict[str, float]]:
    def pairs(split: Split, samples: Samples) -> Iterator[tuple[baselines.Images, baselines.Labels]]:
        for batch in inference.batches(samples, config.batch_size, f"evaluate: baselines, {split}"):
            yield batch.images.numpy(), batch.labels.numpy()

    error = baselines.ridge_error(
        pairs("train", open_samples(manifest, "train")),
        pairs("val", val),
        len(manifest.synsets),
        config.thumbnail_px,
        config.ridge_alpha,
    )
    return {"majority": {"top1_error": baselines.majority_error(manifest)}, "ridge": {"top1_error": error}}


if __name__ == "__main__":
    console.run("evaluate", main)
