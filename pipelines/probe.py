"""The probe stage: what a linear classifier makes of every layer, and the nearest training images of others."""

import csv
from collections.abc import Iterable
from dataclasses import astuple
from itertools import chain, islice
from pathlib import Path

import torch
from torch import Tensor

from alexnet.files.atomic import atomic_folder
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.dataset import ShardDataset
from alexnet.shards.manifest import Manifest
from pipelines.config import params
from pipelines.evaluation import inference, intervals
from pipelines.evaluation.results import SPLIT_NAMES
from pipelines.features import neighbors
from pipelines.features.config import ProbeConfig
from pipelines.features.layers import PIXELS, hidden_layer, layer_outputs
from pipelines.features.neighbors import Nearest
from pipelines.features.ridge import Ridge
from pipelines.pictures.depth import draw_depth
from pipelines.pictures.neighbors import draw_neighbors
from pipelines.runtime import console
from pipelines.storage.dataset import open_dataset

Outputs = tuple[Tensor, dict[str, Tensor]]  # labels of a batch, and its layers' outputs
_BLOCK = 4096  # training images that are compared at a time


def probe(model_path: Path, manifest_path: Path, path: Path) -> None:
    """Fits the probes to the training split and measures them on the test split, or where there is none on validation."""
    config = params.load().probe
    manifest = Manifest.read(manifest_path)
    model = inference.open_model(model_path, manifest)
    split = inference.report_split(manifest)
    split_name = SPLIT_NAMES[split]
    train, judged = open_dataset(manifest, "train"), open_dataset(manifest, split)
    hidden = hidden_layer(model.config.model)
    first = _first(model, judged, config)
    queries = torch.cat([outputs[hidden] for _, outputs in first])[: config.queries]
    nearest = Nearest(queries.cpu().numpy(), config.neighbors)
    probes = _fit(model, train, nearest, config)
    rest = inference.load_batches(judged, config.batch_size, f"probe: {split_name} images", model.device, len(first))
    others = ((batch.labels, layer_outputs(model, batch.images, config.numbers)) for batch in rest)
    wrong = _count_wrong(probes, config.ridge_alpha, chain(first, others))
    by_neighbors, k = neighbors.count_wrong(nearest, judged, train), nearest.samples.shape[1]
    errors = [(name, count, len(judged)) for name, count in wrong.items()]
    errors.append((f"{hidden}, {k} nearest", by_neighbors, len(nearest.samples)))
    with atomic_folder(path) as folder:
        neighbors.write(folder / "neighbors.parquet", nearest, judged, train, manifest.synsets)
        _write_errors(folder / "probe.csv", errors)
        draw_neighbors(folder / "neighbors", folder / "neighbors.parquet", split_name, (judged, train))
        draw_depth(folder / "depth", folder / "probe.csv", split_name)
    shares = [f"{name} {count / len(judged):.2%}" for name, count in wrong.items() if name in (PIXELS, "conv1", hidden)]
    console.say(
        f"probe: {split_name} top-1 error of a linear classifier: {', '.join(shares)}; "
        f"of the {k} nearest training images in {hidden}: {by_neighbors / len(nearest.samples):.2%}"
    )


def _first(model: Pretrained, judged: ShardDataset, config: ProbeConfig) -> list[Outputs]:
    """Labels and outputs of the batches of judged images that have the queries."""
    batches = inference.load_batches(judged, config.batch_size, "probe: queries", model.device)
    steps = -(-min(config.queries, len(judged)) // config.batch_size)
    return [(batch.labels, layer_outputs(model, batch.images, config.numbers)) for batch in islice(batches, steps)]


def _fit(model: Pretrained, train: ShardDataset, nearest: Nearest, config: ProbeConfig) -> dict[str, Ridge]:
    """A probe of every layer, fitted to the training split, whose images are compared with the queries."""
    probes: dict[str, Ridge] = {}
    block: list[Tensor] = []
    for batch in inference.load_batches(train, config.batch_size, "probe: training images", model.device):
        outputs = layer_outputs(model, batch.images, config.numbers)
        probes = probes or {name: Ridge(x.shape[1], len(model.config.synsets), model.device) for name, x in outputs.items()}
        for name, x in outputs.items():
            probes[name].add(x, batch.labels)
        block.append(outputs[hidden_layer(model.config.model)])
        if sum(len(each) for each in block) >= _BLOCK:
            nearest.add(torch.cat(block).cpu().numpy())
            block = []
    if block:
        nearest.add(torch.cat(block).cpu().numpy())
    return probes


def _count_wrong(probes: dict[str, Ridge], alpha: float, images: Iterable[Outputs]) -> dict[str, int]:
    """The number of images that each probe takes for another class."""
    fitted = {name: probe.fit(alpha, standardize=True) for name, probe in probes.items()}
    wrong: dict[str, Tensor | int] = dict.fromkeys(fitted, 0)
    for labels, outputs in images:
        for name, (weights, intercepts) in fitted.items():
            wrong[name] += ((outputs[name].double() @ weights + intercepts).argmax(1) != labels).sum()
    return {name: int(count) for name, count in wrong.items()}  # the host waits for the device here alone


def _write_errors(path: Path, errors: list[tuple[str, int, int]]) -> None:
    """CSV, a row a classifier: what it reads, its top-1 error with its 95% interval, and of how many images."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["layer", "top1_error", "low", "high", "images"])
        for layer, wrong, images in errors:
            writer.writerow([layer, *astuple(intervals.share(wrong / images, images)), images])


if __name__ == "__main__":
    console.run_on_paths(
        "probe",
        probe,
        model="folder of the trained network",
        manifest="the shards to read",
        probe="folder to write: probe.csv, neighbors.parquet, pictures",
    )
