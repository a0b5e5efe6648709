"""Augmentation of batches: random crops, flips, color noise, and subtraction of the mean image; and the views of testing.

Every draw is keyed by (seed, epoch, global sample index): the same for any number of workers, ranks and restarts.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from alexnet.loading.config import AugmentConfig, Views
from alexnet.ops.compile import compile_on_gpu
from alexnet.randomness.keys import random_key
from alexnet.randomness.tensors import copy_to_device, halves, normal, random_bits, random_integers

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
        device, deviations = mean_image.device, eigen_std.double().to(mean_image.device)
        self._eigenvectors = eigenvectors.double().to(device)
        self._scale = deviations if config.color_noise.along == "std" else deviations**2 / 255
        # Within a compiled function an arange is int32, too small for the constants of random_bits.
        self._columns = torch.arange(3, device=device)
        config.check_side(mean_image.shape[0], crop_px)

    def __call__(self, images: Images, samples: Int64[Tensor, " n"], epoch: int) -> Crops:
        """Float crops where the images are, mean subtracted, channels last in memory. The samples' indices are on the host."""
        words = self.words(samples, epoch)
        if images.device.type != "cpu":
            return self.apply(images, copy_to_device(words, images.device))
        if self.config.crop == "center" and not self.config.flip:
            squares = center(images, self.crop_px)
        else:
            squares = _crop_by_slicing(images, *self._places(words, images.shape[1] - self.crop_px), self.crop_px)
        crops = torch.sub(squares, self.mean)
        if self._is_noisy(epoch):
            crops = crops.add_(self._shifts(words)[:, None, None, :]).div_(self.config.color_noise.divide)
        return crops.permute(0, 3, 1, 2)

    def words(self, samples: Int64[Tensor, " n"], epoch: int) -> Int64[Tensor, " words"]:
        """All that the draws of an epoch's samples depend on: four keys' halves, whether there is color noise, the samples."""
        crop, noise = (random_key(self.seed, purpose, epoch) for purpose in ("crop", "color noise"))
        keys = [crop, random_key(crop, "flip"), random_key(noise, 1), random_key(noise, 2)]
        return torch.cat([torch.tensor([half for key in keys for half in halves(key)] + [self._is_noisy(epoch)]), samples])

    def apply(self, images: Images, words: Int64[Tensor, " words"]) -> Crops:
        """The crops of what the words say, on a GPU in one kernel, which does not wait for the host."""
        return compile_on_gpu(self._crop_flip_subtract, images.device)(images, words).permute(0, 3, 1, 2)

    def _crop_flip_subtract(self, images: Images, words: Int64[Tensor, " words"]) -> Float[Tensor, "n crop crop 3"]:
        """All of it as one kernel; float64 inside where numbers are drawn, so that a CPU draws the same."""
        tops, lefts, flips = self._places(words, images.shape[1] - self.crop_px)
        reach = torch.arange(self.crop_px, device=images.device)
        columns = torch.where(flips[:, None], self.crop_px - 1 - reach, reach) + lefts[:, None]
        rows = tops[:, None] + reach
        index = torch.arange(len(images), device=images.device)
        crops = images[index[:, None, None], rows[:, :, None], columns[:, None, :]] - self.mean
        noise = _unpack(words).noise
        shifts, divide = noise * self._shifts(words), torch.where(noise > 0, self.config.color_noise.divide, 1.0)
        return (crops + shifts[:, None, None]) / divide.to(crops.dtype)

    def _is_noisy(self, epoch: int) -> bool:
        noise = self.config.color_noise
        return noise.std > 0 and (noise.end_epoch is None or epoch < noise.end_epoch)

    def _places(self, words: Int64[Tensor, " words"], margin: int) -> tuple[Tensor, Tensor, Tensor]:
        """Top and left of every sample's crop, and whether it is flipped. margin: how much longer a side of the images is."""
        given = _unpack(words)
        rows = torch.div(given.samples, self.config.crop_run, rounding_mode="floor")
        if self.config.crop == "random":
            first = (margin + 1 - self.config.crop_offsets) // 2  # larger images: around the center still
            offsets = random_integers(given.crop_key, rows, self._columns[:2], self.config.crop_offsets)
            tops, lefts = (first + offsets).unbind(1)
        else:
            tops = lefts = torch.full_like(rows, margin // 2)
        flips = random_bits(given.flip_key, rows, self._columns[:1])[:, 0] >= 2**31
        return tops, lefts, flips if self.config.flip else torch.zeros_like(flips)

    def _shifts(self, words: Int64[Tensor, " words"]) -> Float[Tensor, "n 3"]:
        """RGB shifts: for every image one draw along each eigenvector."""
        given = _unpack(words)
        draws = normal(given.noise_keys, given.samples, self._columns) * self.config.color_noise.std * self._scale
        return (draws[:, None, :] * self._eigenvectors).sum(2).to(self.mean.dtype)


class _Words(NamedTuple):
    """The parts of Augment.words. noise: 1 where there is color noise, else 0."""

    crop_key: Int64[Tensor, "2"]
    flip_key: Int64[Tensor, "2"]
    noise_keys: tuple[Int64[Tensor, "2"], Int64[Tensor, "2"]]
    noise: Int64[Tensor, ""]
    samples: Int64[Tensor, " n"]


def _unpack(words: Int64[Tensor, " words"]) -> _Words:
    crop, flip, first, second = words[:8].view(4, 2).unbind()
    return _Words(crop, flip, (first, second), words[8], words[9:])


def _crop_by_slicing(images: Images, tops: Tensor, lefts: Tensor, flips: Tensor, px: int) -> UInt8[Tensor, "n crop crop 3"]:
    """Crops by slicing: on a CPU several times faster than indexing every pixel."""
    crops = images.new_empty((len(images), px, px, 3))
    for i, (top, left, flip) in enumerate(zip(tops.tolist(), lefts.tolist(), flips.tolist(), strict=True)):
        crop = images[i, top : top + px, left : left + px]
        crops[i] = crop.flip(1) if flip else crop
    return crops


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
