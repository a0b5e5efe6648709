"""Augmentation of batches: random crops, flips, color noise, and subtraction of the mean image; and the views of testing.

Every draw is keyed by (seed, epoch, global sample index): the same for any number of workers, ranks and restarts.
"""

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from alexnet.loading.config import AugmentConfig, ColorNoiseConfig, Views
from alexnet.ops.compile import compile_on_gpu
from alexnet.randomness.keys import random_key
from alexnet.randomness.tensors import copy_to_device, normal, random_bits, random_integers

# The crops of each protocol among the ten views of 4.1: four corners and the center, each as it is, then flipped.
CROPS_OF: dict[Views, slice] = {
    "center": slice(8, 9),
    "five": slice(0, None, 2),
    "flipped": slice(1, None, 2),
    "ten": slice(None),
}

Images = UInt8[Tensor, "n side side 3"]
Mean = Float[Tensor, "crop crop 3"]
Crops = Float[Tensor, "n 3 crop crop"]


class Augment:
    """Augments batches for training. Statistics are those of the training set, RGB, on the 0-255 scale.

    Args:
        config: which augmentations, how strong.
        mean_image: of the training set; its central square is subtracted wherever the crop came from, as the run did.
        eigenvectors: of the covariance of RGB values, in columns.
        eigen_std: standard deviations along them.
    """

    def __init__(
        self,
        config: AugmentConfig,
        mean_image: Float[Tensor, "side side 3"],
        eigenvectors: Float[Tensor, "3 3"],
        eigen_std: Float[Tensor, " 3"],
        seed: int,
        crop_px: int = 224,
    ) -> None:
        self.config, self.seed, self.crop_px = config, seed, crop_px
        self.mean = center(mean_image, crop_px)
        self.eigenvectors, self.eigen_std = eigenvectors.double(), eigen_std.double()
        config.check_side(mean_image.shape[0], crop_px)

    def __call__(self, images: Images, samples: Int64[Tensor, " n"], epoch: int) -> Crops:
        """Float crops where the images are, mean subtracted, channels last in memory. The samples' indices are on the host."""
        margin = images.shape[1] - self.crop_px
        if images.device.type != "cpu":
            return self.apply(images, copy_to_device(self.draw(samples, margin, epoch), images.device))
        if self.config.crop == "center" and not self.config.flip:
            squares = center(images, self.crop_px)
        else:
            squares = _crop_by_slicing(images, *self._draw(samples, margin, epoch), self.crop_px)
        crops = torch.sub(squares, self.mean)
        shift, divide = self._noise(samples, epoch)
        if shift is not None:
            crops = crops.add_(shift[:, None, None, :]).div_(divide)
        return crops.permute(0, 3, 1, 2)

    def draw(self, samples: Int64[Tensor, " n"], margin: int, epoch: int) -> Float[Tensor, "n 7"]:
        """All draws of the samples, on the host: top, left, whether to flip, the RGB shift, and the divisor.

        margin: pixels by which a side of the images is longer than a crop's.
        """
        shift, divide = self._noise(samples, epoch)
        places = torch.stack(self._draw(samples, margin, epoch), 1)
        shifts = torch.zeros(len(samples), 3) if shift is None else shift
        return torch.cat([places, shifts, torch.full((len(samples), 1), divide)], 1)

    def apply(self, images: Images, drawn: Float[Tensor, "n 7"]) -> Crops:
        """The crops of what was drawn, on a GPU in one kernel."""
        mean = self.mean.to(images.device)
        return compile_on_gpu(_crop_flip_subtract, images.device)(images, drawn, mean).permute(0, 3, 1, 2)

    def _noise(self, samples: Int64[Tensor, " n"], epoch: int) -> tuple[Float[Tensor, "n 3"] | None, float]:
        """The RGB shift of every sample, None for no noise, and the divisor of the shifted pixels."""
        noise = self.config.color_noise
        if noise.std == 0 or (noise.end_epoch is not None and epoch >= noise.end_epoch):
            return None, 1.0
        return self._color_noise(noise, samples, epoch).to(self.mean.dtype), noise.divide

    def _draw(self, samples: Int64[Tensor, " n"], margin: int, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.div(samples, self.config.crop_run, rounding_mode="floor")
        k = random_key(self.seed, "crop", epoch)
        if self.config.crop == "random":
            first = (margin + 1 - self.config.crop_offsets) // 2  # larger images: around the center still
            tops, lefts = (first + random_integers(k, rows, 2, self.config.crop_offsets)).unbind(1)
        else:
            tops = lefts = torch.full_like(rows, margin // 2)
        flips = random_bits(random_key(k, "flip"), rows, torch.zeros(1, dtype=torch.int64))[:, 0] >= 2**31
        return tops, lefts, flips if self.config.flip else torch.zeros_like(flips)

    def _color_noise(self, noise: ColorNoiseConfig, samples: Int64[Tensor, " n"], epoch: int) -> Float[Tensor, "n 3"]:
        """RGB shifts: for every image one draw along each eigenvector."""
        draws = normal(random_key(self.seed, "color noise", epoch), samples, 3) * noise.std
        scale = self.eigen_std if noise.along == "std" else self.eigen_std**2 / 255
        return (draws * scale) @ self.eigenvectors.T


def _crop_by_slicing(images: Images, tops: Tensor, lefts: Tensor, flips: Tensor, px: int) -> UInt8[Tensor, "n crop crop 3"]:
    """Crops by slicing: on a CPU several times faster than indexing every pixel."""
    crops = images.new_empty((len(images), px, px, 3))
    for i, (top, left, flip) in enumerate(zip(tops.tolist(), lefts.tolist(), flips.tolist(), strict=True)):
        crop = images[i, top : top + px, left : left + px]
        crops[i] = crop.flip(1) if flip else crop
    return crops


def _crop_flip_subtract(images: Images, drawn: Float[Tensor, "n 7"], mean: Mean) -> Float[Tensor, "n crop crop 3"]:
    """The whole augmentation as one GPU kernel, which does not wait for the host; see Augment.draw."""
    tops, lefts, flips = drawn[:, :3].long().unbind(1)
    reach = torch.arange(len(mean), device=images.device)
    columns = torch.where(flips[:, None] > 0, len(mean) - 1 - reach, reach) + lefts[:, None]
    rows = tops[:, None] + reach
    index = torch.arange(len(images), device=images.device)
    crops = images[index[:, None, None], rows[:, :, None], columns[:, None, :]]
    return (crops - mean + drawn[:, None, None, 3:6]) / drawn[:, None, None, 6:]


def center(images: Tensor, px: int) -> Tensor:
    """The central square, px a side, of images whose last three dimensions are height, width and channels."""
    start = (images.shape[-2] - px) // 2
    return images[..., start : start + px, start : start + px, :]


def center_crop(images: Images, mean: Mean) -> Crops:
    """The center crop, of the mean's size and with the mean subtracted, channels last in memory."""
    return torch.sub(center(images, mean.shape[0]), mean).permute(0, 3, 1, 2)


def stack_crops(images: Images, mean: Mean, views: Views, dtype: torch.dtype) -> Float[Tensor, "crops 3 crop crop"]:
    """All crops of a protocol as one batch, of the first view all images, then of the next; channels last in memory."""
    px, margin = mean.shape[0], images.shape[1] - mean.shape[0]
    corners = ((0, 0), (0, margin), (margin, 0), (margin, margin), (margin // 2, margin // 2))
    plain = [images[:, top : top + px, left : left + px] for top, left in corners]
    squares = [view for square in plain for view in (square, square.flip(2))][CROPS_OF[views]]
    crops = torch.empty((len(squares), *squares[0].shape), dtype=dtype, device=images.device)
    for square, crop in zip(squares, crops, strict=True):
        torch.sub(square, mean, out=crop)
    return crops.flatten(0, 1).permute(0, 3, 1, 2)
