"""Augmentation: keyed draws, one result on every path, and the views of testing."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torchvision.transforms import v2

from alexnet.loading.augment import (
    CROPS_OF,
    Augment,
    center,
    center_crop,
    stack_crops,
)
from alexnet.loading.config import AugmentConfig, ColorNoiseConfig, Views

QUIET = ColorNoiseConfig(std=0.0, along="std", divide=1.1, end_epoch=None)
PLAIN = AugmentConfig(crop="random", crop_offsets=33, crop_run=1, flip=True, color_noise=QUIET)
AXES = torch.linalg.qr(torch.tensor([[1.0, 2.0, 3.0], [0.0, 1.0, 4.0], [5.0, 6.0, 0.0]])).Q


def images(count: int) -> Tensor:
    return torch.randint(0, 256, (count, 256, 256, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


def augment(config: AugmentConfig, mean: Tensor | None = None) -> Augment:
    return Augment(config, torch.zeros(256, 256, 3) if mean is None else mean, AXES, torch.tensor([20.0, 37.0, 122.0]), seed=1)


def test_what_happens_to_a_sample_does_not_depend_on_its_batch() -> None:
    noisy = replace(PLAIN, color_noise=replace(QUIET, std=0.1))
    batch, samples = images(6), torch.tensor([3, 141, 59, 26, 5, 35])
    whole = augment(noisy)(batch, samples, epoch=4)
    parts = [augment(noisy)(batch[i : i + 2], samples[i : i + 2], epoch=4) for i in (0, 2, 4)]
    assert torch.equal(whole, torch.cat(parts))
    assert not torch.equal(whole, augment(noisy)(batch, samples, epoch=5))


def test_every_crop_is_a_window_of_its_image_or_that_windows_mirror() -> None:
    batch = images(8)
    crops = augment(PLAIN)(batch, torch.arange(8), epoch=0).permute(0, 2, 3, 1)
    for image, crop in zip(batch.float(), crops, strict=True):
        windows = image.unfold(0, 224, 1).unfold(1, 224, 1)  # 33 x 33 x 3 x 224 x 224
        corner = windows[..., 0, 0]
        assert any(
            torch.equal(image[y : y + 224, x : x + 224], seen)
            for seen in (crop, crop.flip(1))
            for y, x in (corner == seen[0, 0]).all(-1).nonzero().tolist()
        )


def places(config: AugmentConfig, count: int, margin: int) -> tuple[Tensor, Tensor, Tensor]:
    """Tops, lefts and flips of the first samples."""
    here = augment(config)
    return here._places(here.words(torch.arange(count), epoch=0), margin)


def test_offsets_cover_0_to_32_and_flips_are_even() -> None:
    tops, lefts, flips = places(PLAIN, 20_000, 32)
    for offsets in (tops, lefts):
        assert set(offsets.tolist()) == set(range(33))
        assert torch.bincount(offsets).float().std() < 60  # 606 each, 24 expected
    assert abs(flips.float().mean().item() - 0.5) < 0.02
    assert abs(torch.corrcoef(torch.stack([tops.float(), lefts.float(), flips.float()])).fill_diagonal_(0)).max() < 0.03


def test_crops_of_larger_images_lie_around_their_center() -> None:
    tops, lefts, _ = places(PLAIN, 2000, 64)
    assert {*tops.tolist()} == {*lefts.tolist()} == {*range(16, 49)}


def test_consecutive_samples_share_a_crop_by_crop_run_as_in_2012() -> None:
    tops, lefts, flips = places(replace(PLAIN, crop_run=32), 128, 32)
    for drawn in (tops, lefts, flips):
        assert (drawn.view(4, 32) == drawn.view(4, 32)[:, :1]).all()
    assert len(set(zip(tops.tolist(), lefts.tolist(), flips.tolist(), strict=True))) == 4


def test_the_path_for_a_gpu_gives_the_same_crops() -> None:
    batch = images(5)
    for noise in (QUIET, replace(QUIET, std=0.1)):
        here = augment(replace(PLAIN, color_noise=noise), torch.rand(256, 256, 3) * 255)
        crops = here.apply(batch, here.words(torch.arange(5), epoch=2))
        assert torch.equal(crops, here(batch, torch.arange(5), epoch=2))


def test_color_noise_moves_a_whole_image_along_the_axes_by_their_deviations() -> None:
    noise = replace(QUIET, std=0.1)
    noisy = augment(replace(PLAIN, color_noise=noise))
    shifts = noisy._shifts(noisy.words(torch.arange(4000), 0)).double()
    along = shifts @ AXES.double()
    assert torch.allclose(along.std(0).float(), torch.tensor([2.0, 3.7, 12.2]), rtol=0.05)
    assert torch.allclose(along.mean(0).float(), torch.zeros(3), atol=0.8)
    grey = torch.full((4, 256, 256, 3), 128, dtype=torch.uint8)
    crops = noisy(grey, torch.arange(4), 0)
    assert torch.allclose(crops, ((128 + shifts[:4]) / 1.1).float()[:, :, None, None].expand(-1, -1, 224, 224), atol=1e-4)


def test_color_noise_and_its_division_end_at_end_epoch() -> None:
    config = replace(PLAIN, crop="center", flip=False, color_noise=replace(QUIET, std=0.1, end_epoch=67))
    batch = images(2)
    assert torch.equal(augment(config)(batch, torch.arange(2), 67), center(batch, 224).float().permute(0, 3, 1, 2))
    assert not torch.equal(augment(config)(batch, torch.arange(2), 66), center(batch, 224).float().permute(0, 3, 1, 2))


def test_the_means_center_is_subtracted_wherever_the_crop_came_from() -> None:
    mean = torch.rand(256, 256, 3) * 255
    batch = images(3)
    without, with_mean = augment(PLAIN)(batch, torch.arange(3), 0), augment(PLAIN, mean)(batch, torch.arange(3), 0)
    assert torch.allclose(without - with_mean, center(mean, 224).permute(2, 0, 1).expand(3, -1, -1, -1), atol=1e-4)


def test_crops_are_channels_last_for_the_convolutions() -> None:
    assert augment(PLAIN)(images(2), torch.arange(2), 0).is_contiguous(memory_format=torch.channels_last)


def ten_crops(batch: Tensor) -> list[Tensor]:
    crops = stack_crops(batch, torch.zeros(224, 224, 3), "ten", torch.float32)
    return list(crops.to(torch.uint8).unflatten(0, (10, len(batch))))


def test_the_ten_views_are_four_corners_the_center_and_their_mirrors() -> None:
    batch = images(1)
    views = [view[0].permute(1, 2, 0) for view in ten_crops(batch)]
    corners = [(0, 0), (0, 32), (32, 0), (32, 32), (16, 16)]
    assert len(views) == 10
    for (top, left), plain, mirrored in zip(corners, views[::2], views[1::2], strict=True):
        assert torch.equal(plain, batch[0, top : top + 224, left : left + 224])
        assert torch.equal(mirrored, plain.flip(1))
    assert torch.equal(center_crop(batch, torch.zeros(224, 224, 3))[0].permute(1, 2, 0).to(torch.uint8), views[8])


def test_the_ten_views_are_torchvisions_ten_crop() -> None:
    """Which flips the image first, so that its flipped corners come in another order."""
    batch = images(2)
    theirs = v2.functional.ten_crop(batch.permute(0, 3, 1, 2), [224, 224])
    ours = ten_crops(batch)
    for mine, other in zip(ours[::2] + [ours[1::2][at] for at in (1, 0, 3, 2, 4)], theirs, strict=True):
        assert torch.equal(mine, other)


@pytest.mark.parametrize("views", ["center", "five", "flipped", "ten"])
def test_the_crops_of_a_protocol_in_one_batch_are_those_of_the_ten(views: Views) -> None:
    batch, mean = images(2), torch.rand(224, 224, 3)
    crops = stack_crops(batch, mean, views, torch.float32)
    assert crops.is_contiguous(memory_format=torch.channels_last)
    ten = stack_crops(batch, mean, "ten", torch.float32).unflatten(0, (10, 2))
    assert torch.equal(crops, ten[CROPS_OF[views]].flatten(0, 1))
    assert torch.equal(stack_crops(batch, mean, views, torch.bfloat16), crops.bfloat16())


def test_more_offsets_than_the_image_has_are_refused() -> None:
    with pytest.raises(ValueError, match="crop_offsets: must be at most 33 for images of 256 pixels, got 34"):
        augment(replace(PLAIN, crop_offsets=34))
