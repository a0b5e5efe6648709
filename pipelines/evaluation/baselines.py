"""Baselines on the validation split: always the most frequent class, and ridge regression on thumbnails."""

from collections.abc import Iterable

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt8
from PIL import Image

from alexnet.shards.manifest import Manifest
from pipelines.features.ridge import Ridge

Images = UInt8[np.ndarray, "n side side 3"]
Thumbnails = Float64[np.ndarray, "n features"]
Labels = Int64[np.ndarray, " n"]


def majority_error(manifest: Manifest) -> float:
    """Top-1 error on the validation split when every image is predicted as the training split's most frequent class."""
    counts = {split: np.zeros(len(manifest.synsets), np.int64) for split in ("train", "val")}
    for split, shards in manifest.splits.items():
        for shard in shards:
            for label, images in shard.labels.items():
                counts[split][label] += images
    return float(np.delete(counts["val"], counts["train"].argmax()).sum() / counts["val"].sum())


def thumbnails(images: Images, side_px: int) -> Thumbnails:
    """Each image averaged down to side_px x side_px, flat, RGB in 0..1."""
    small = [Image.fromarray(image).resize((side_px, side_px), Image.Resampling.BOX) for image in images]
    return np.stack([np.asarray(image, np.float64).ravel() for image in small]) / 255


def ridge_error(
    train: Iterable[tuple[Images, Labels]], val: Iterable[tuple[Images, Labels]], classes: int, side_px: int, alpha: float
) -> float:
    """Top-1 error on the validation batches of a ridge regression on thumbnails of the training batches."""
    ridge, wrong, count = Ridge(3 * side_px**2, classes), 0, 0
    for images, labels in train:
        ridge.add(torch.from_numpy(thumbnails(images, side_px)), torch.from_numpy(labels))
    weights, intercepts = (fitted.numpy() for fitted in ridge.fit(alpha))
    for images, labels in val:
        scores = thumbnails(images, side_px) @ weights + intercepts
        wrong += int((scores.argmax(1) != labels).sum())
        count += len(labels)
    return wrong / count
