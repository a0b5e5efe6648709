"""Baselines: always the most frequent class, and ridge regression on thumbnails."""

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from PIL import Image

from alexnet.shards.manifest import Manifest, Split
from pipelines.features.ridge import Ridge

Images = UInt8[np.ndarray, "n side side 3"]
Thumbnails = Float64[np.ndarray, "n features"]
Labels = Int64[np.ndarray, " n"]
Batch = tuple[Images, Labels]


def majority_error(manifest: Manifest, judged: Split) -> float:
    """Top-1 error on a split when every image is predicted as the training split's most frequent class."""
    counts = {split: np.zeros(len(manifest.synsets), np.int64) for split in manifest.splits}
    for split, shards in manifest.splits.items():
        for shard in shards:
            for label, images in shard.labels.items():
                counts[split][label] += images
    return float(np.delete(counts[judged], counts["train"].argmax()).sum() / counts[judged].sum())


def thumbnails(images: Images, side_px: int) -> Thumbnails:
    """Each image averaged down to side_px x side_px, flat, RGB in 0..1."""
    small = [Image.fromarray(image).resize((side_px, side_px), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image, np.float64).ravel() for image in small]) / 255


def ridge_errors(
    train: Iterable[Batch], judged: Mapping[Split, Iterable[Batch]], classes: int, side_px: int, alpha: float
) -> dict[Split, float]:
    """Top-1 error on each split's batches of a ridge regression on thumbnails of the training batches."""
    ridge = Ridge(3 * side_px**2, classes)
    for images, labels in train:
        ridge.add(torch.from_numpy(thumbnails(images, side_px)), torch.from_numpy(labels))
    weights, intercepts = (fitted.numpy() for fitted in ridge.fit(alpha))

    def error(batches: Iterable[Batch]) -> float:
        wrong = [(thumbnails(images, side_px) @ weights + intercepts).argmax(1) != labels for images, labels in batches]
        return float(np.concatenate(wrong).mean())

    return {split: error(batches) for split, batches in judged.items()}
