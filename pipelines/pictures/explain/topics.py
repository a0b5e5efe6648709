"""What is done to a picture and its values, in pictures: pooling windows, the ten crops, color noise, dropout's masks."""

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import UInt8

from alexnet.loading.augment import Augment, stack_crops
from alexnet.randomness.keys import random_key
from alexnet.randomness.tensors import dropout_mask, mask_words
from pipelines.pictures import style
from pipelines.pictures.explain.sheets import Rgb, limit, unit_grid
from pipelines.pictures.explain.subject import Subject
from pipelines.pictures.explain.trace import Trace
from pipelines.pictures.style import BLUE, GREY, LINE, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PIXELS = 9  # of a row, under the windows
_NOISE_STD = 0.1  # 4.1


def pooling_windows(size: int, stride: int) -> bytes:
    """An SVG: windows over a row of pixels, once with this size and stride, once side by side."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(2, 1)
        for place, (side, title) in zip(axes, ((size, "overlapping"), (stride, "side by side")), strict=True):
            place.bar(np.arange(_PIXELS) + 0.5, 0.8, 0.94, 0.1, color=LINE)
            for number, start in enumerate(range(0, _PIXELS - side + 1, stride)):
                height = -0.25 - 0.3 * (number % 2)
                place.plot([start + 0.08, start + side - 0.08], [height, height], color=(BLUE, ORANGE)[number % 2], linewidth=4)
            place.set(xlim=(0, _PIXELS), ylim=(-0.8, 1), title=f"{title}: windows of {side}, a step of {stride}")
            place.axis("off")

    return style.render((style.WIDTH, 2.2), draw, "Pooling windows over a row of pixels")["svg"]


def nonlinearities() -> bytes:
    """An SVG of ReLU, solid, and tanh, dashed."""

    def draw(figure: "Figure") -> None:
        axes, at = figure.subplots(), np.linspace(-3, 3, 121)
        axes.plot(at, np.maximum(at, 0), color=BLUE, label="ReLU: max(0, x)")
        axes.plot(at, np.tanh(at), "--", color=ORANGE, label="tanh(x)")
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.legend(loc="upper left")

    return style.render((style.WIDTH, 2.6), draw, "ReLU and tanh")["svg"]


def ten_crops(subject: Subject) -> list[UInt8[np.ndarray, "crop crop 3"]]:
    """Four corners and the center, each as it is and then flipped (4.1)."""
    mean = subject.model.mean_crop.cpu()
    crops = stack_crops(subject.image[None], mean, "ten", torch.float32).permute(0, 2, 3, 1) + mean
    return list(crops.clamp(0, 255).round().byte().numpy())


def color_noise(subject: Subject, draws: int = 5) -> list[UInt8[np.ndarray, "crop crop 3"]]:
    """The center crop with the paper's color noise, by the training set's colors; none where these are not known."""
    training = subject.training
    if training is None or training.pixels is None:
        return []
    noise = dataclasses.replace(training.augment.color_noise, std=_NOISE_STD, divide=1.0, end_epoch=None)
    augment = dataclasses.replace(training.augment, crop="center", flip=False, color_noise=noise)
    vectors, std = (torch.from_numpy(each) for each in (training.pixels.eigenvectors, training.pixels.eigen_std))
    draw = Augment(augment, subject.model.mean_image.cpu(), vectors, std, 0, subject.model.config.model.input_px)
    crops = draw(subject.image[None].expand(draws, -1, -1, -1), torch.arange(draws), 0).permute(0, 2, 3, 1) + draw.mean
    return list(crops.clamp(0, 255).round().byte().numpy())


def dropped(subject: Subject, traced: Trace, draws: int = 3) -> tuple[str, list[Rgb]] | None:
    """The first layer whose outputs are dropped, and its values as they are, then by the masks of so many steps."""
    config = subject.model.config.model
    names = [row.name for row in subject.model.network.layers if row.drops]
    if not names or not config.dropout:
        return None
    values = traced.values[traced.response(names[0])]
    words = mask_words(random_key(0, "dropout", names[0]), torch.arange(draws))
    masks = dropout_mask(words, range(len(values)), config.dropout, torch.device("cpu"))
    columns = next(each for each in range(int(len(values) ** 0.5), 0, -1) if len(values) % each == 0)
    shown = [values, *(values * mask for mask in masks)]
    return names[0], [unit_grid(each, len(values) // columns, limit(values)) for each in shown]
