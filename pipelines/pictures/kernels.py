"""The kernels of conv1 by tower (figure 3), how much of each tower's is color, and how many have structure above noise."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from pipelines.pictures import style
from pipelines.pictures.style import FAINT, TOWERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

QUANTILE = 0.99  # of the noise, above which a kernel's structure counts
_NOISE_KERNELS = 4096
_KERNELS_A_ROW = 12
_ENLARGED = 4  # pixels to a weight
_GREY_LEVELS = 0.5  # a mean image whose channels differ by less, on the scale 0 to 255, is that of grey images

Kernels = Float[np.ndarray, "kernels channels size size"]


@dataclass(frozen=True)
class KernelFacts:
    """Of one tower's kernels.

    color: the share of their energy (sum of squared weights) that is not grey, that is, not the mean over the channels; weights
    drawn independently have 2/3. None where images are grey, which no color can act on. structure: the mean correlation of
    neighboring weights, 0 of noise and 1 where all is smooth. structured: the share of kernels in which it is above the
    QUANTILE of kernels of Gaussian noise, as training starts from.
    """

    color: float | None
    structure: float
    structured: float


def color_share(kernels: Kernels) -> float:
    """The share of the energy of kernels with three channels that is left when the mean over the channels is removed."""
    energy = float((kernels**2).sum())
    return float(((kernels - kernels.mean(1, keepdims=True)) ** 2).sum()) / energy if energy else 0.0


def neighbor_correlation(kernels: Kernels) -> Float[np.ndarray, " kernels"]:
    """For every kernel, the correlation of weights that touch, below and beside each other, about zero: 0 expected of noise."""
    products = (kernels[..., 1:, :] * kernels[..., :-1, :]).sum((1, 2, 3)) + (kernels[..., 1:] * kernels[..., :-1]).sum(
        (1, 2, 3)
    )
    size = kernels.shape[-1]
    pairs = 2 * size * (size - 1) / size**2  # pairs to a weight
    correlation: Float[np.ndarray, " kernels"] = products / (pairs * np.maximum((kernels**2).sum((1, 2, 3)), 1e-30))
    return correlation


def has_structure(kernels: Kernels) -> Bool[np.ndarray, " kernels"]:
    """Whether each kernel's `neighbor_correlation` is above the QUANTILE of Gaussian noise of the same shape."""
    noise = np.random.default_rng(0).standard_normal((_NOISE_KERNELS, *kernels.shape[1:]))
    above: Bool[np.ndarray, " kernels"] = neighbor_correlation(kernels) > np.quantile(neighbor_correlation(noise), QUANTILE)
    return above


def kernel_facts(weight: Float[Tensor, "kernels 3 size size"], towers: int, is_grey: bool) -> list[KernelFacts]:
    """The facts of every tower. is_grey: the images are, so that only the sum of a kernel's channels has an effect."""
    kernels = weight.detach().cpu().double().numpy()
    acting = kernels.sum(1, keepdims=True) if is_grey else kernels
    return [
        KernelFacts(
            None if is_grey else color_share(part), float(neighbor_correlation(act).mean()), float(has_structure(act).mean())
        )
        for part, act in zip(np.split(kernels, towers), np.split(acting, towers), strict=True)
    ]


def images_are_grey(mean_image: Float[Tensor, "side side 3"]) -> bool:
    """Whether the mean image of the training set has equal channels."""
    return bool((mean_image.amax(2) - mean_image.amin(2)).max() < _GREY_LEVELS)


def draw_kernels(
    stem: Path, weight: Float[Tensor, "kernels 3 size size"], towers: int, mean_image: Float[Tensor, "side side 3"]
) -> None:
    """conv1's kernels, tower a above tower b; each on its own scale, grey where it is zero."""
    is_grey = images_are_grey(mean_image)
    facts = kernel_facts(weight, towers, is_grey)
    kernels = weight.detach().cpu().float()
    if is_grey:
        kernels = kernels.sum(1, keepdim=True).expand(-1, 3, -1, -1)
    scaled = 0.5 + kernels / (2 * kernels.abs().amax(dim=(1, 2, 3), keepdim=True).clamp_min(1e-12))
    sheets = [_tiles(part) for part in np.split(scaled.permute(0, 2, 3, 1).numpy(), towers)]

    def draw(figure: "Figure") -> None:
        for tower, (sheet, axes) in enumerate(zip(sheets, figure.subplots(towers, squeeze=False).flat, strict=True)):
            axes.imshow(sheet, interpolation="none")
            axes.axis("off")
            axes.set_title(f"conv1, tower {TOWERS[tower]}" if towers > 1 else "conv1", pad=22)
            axes.text(0, 1, _line(facts[tower]), transform=axes.transAxes, va="bottom", color=FAINT, size=style.SMALL)
        figure.suptitle(" ", size=1)  # room above the first title, which the layout does not leave
        figure.supxlabel(_note(facts, is_grey), size=style.SMALL, color=FAINT, ha="left", x=0.02)

    tall = towers * (0.55 + 4.8 * sheets[0].shape[0] / sheets[0].shape[1])
    style.save(stem, (style.WIDTH, tall + 1.1), draw, f"Kernels of conv1. {' '.join(map(_line, facts))}")


def _line(facts: KernelFacts) -> str:
    structure = f"structure {facts.structure:.2f}, above noise in {style.percent(facts.structured)} of the kernels"
    return structure if facts.color is None else f"color {style.percent(facts.color)}; {structure}"


def _note(facts: list[KernelFacts], is_grey: bool) -> str:
    """What the numbers mean, and whether most of what is seen is noise."""
    lines = [
        "Most of what they show is the noise they started as." if max(each.structure for each in facts) < 0.5 else "",
        "Summed over the channels: the images are grey." if is_grey else "Color: energy off the channels' mean; of noise, 67%.",
        "Structure: correlation of neighboring weights; of noise, 0.",
        f"Above noise: above {QUANTILE:.0%} of Gaussian kernels.",
    ]
    return "\n".join(filter(None, lines))


def _tiles(kernels: Float[np.ndarray, "n size size 3"]) -> Float[np.ndarray, "h w 4"]:
    """Kernels in rows with transparent lines between them."""
    large = np.pad(kernels.repeat(_ENLARGED, axis=1).repeat(_ENLARGED, axis=2), ((0, 0),) * 3 + ((0, 1),), constant_values=1)
    large = np.pad(large, ((0, 0), (0, _ENLARGED), (0, _ENLARGED), (0, 0)))
    columns = min(len(large), _KERNELS_A_ROW)
    large = np.pad(large, ((0, -len(large) % columns), (0, 0), (0, 0), (0, 0)))
    rows, side = len(large) // columns, large.shape[1]
    sheet = large.reshape(rows, columns, side, side, 4).swapaxes(1, 2).reshape(rows * side, columns * side, 4)
    return sheet[:-_ENLARGED, :-_ENLARGED]
