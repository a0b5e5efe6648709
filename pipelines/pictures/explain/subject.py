"""What is explained: a picture, a network, and what training did to its pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from alexnet.config import build
from alexnet.errors import DataError
from alexnet.images.statistics import PixelStatistics
from alexnet.inference.pretrained import Pretrained
from alexnet.inference.ranking import topk
from alexnet.loading.augment import Augment
from alexnet.loading.config import AugmentConfig
from pipelines.pictures.explain.trace import Trace

_CROPS = 8  # of training, that are shown


@dataclass(frozen=True)
class Training:
    """What training did to pictures. pixels: None where color noise needs none, or its statistics are not known."""

    augment: AugmentConfig
    pixels: PixelStatistics | None


@dataclass(frozen=True)
class Subject:
    """A picture, prepared as the network's are, its name and its true class, if it is known; the network, and its name."""

    image: UInt8[Tensor, "side side 3"]
    name: str
    model: Pretrained
    model_name: str
    training: Training | None = None
    true_class: str | None = None


def read_training(tree: Any, pixels: Path) -> Training:
    """Of params.yaml as a tree, and the file of the training set's pixel statistics, if it is there.

    Raises:
        DataError: what training did to pictures is not in the tree, or the statistics are damaged.
    """
    try:
        augment = build(AugmentConfig, tree["train"]["augment"], "params.yaml")
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"params.yaml: has no train.augment that this version reads: {error}") from None
    return Training(augment, PixelStatistics.read(pixels) if pixels.is_file() else None)


def best_classes(subject: Subject, traced: Trace) -> list[dict[str, Any]]:
    """The five most probable classes: name, probability, and what each tower adds to the logit."""
    top = topk(traced.probabilities[None])
    return [
        {
            "name": subject.model.config.synsets[label].name,
            "probability": float(probability),
            "logits": [float(each) for each in traced.logits_by_tower[:, label]],
        }
        for label, probability in zip(top.labels[0].tolist(), top.probabilities[0], strict=True)
    ]


def training_crops(subject: Subject) -> list[UInt8[np.ndarray, "crop crop 3"]]:
    """Random crops as training draws them, with flips and color noise, the mean image added again."""
    if subject.training is None:
        return []
    augment, pixels = subject.training.augment, subject.training.pixels
    mean = subject.model.mean_image.cpu()
    vectors = torch.from_numpy(pixels.eigenvectors) if pixels else torch.eye(3)
    std = torch.from_numpy(pixels.eigen_std) if pixels else torch.zeros(3)
    draw = Augment(augment, mean, vectors, std, 0, subject.model.config.model.input_px)
    crops = draw(subject.image[None].expand(_CROPS, -1, -1, -1), torch.arange(_CROPS) * augment.crop_run, 0)
    return list((crops.permute(0, 2, 3, 1) + draw.mean).clamp(0, 255).round().byte().numpy())
