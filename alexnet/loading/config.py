"""The configuration of augmentation (4.1). Knows no torch, so that reading params.yaml does not import it."""

from dataclasses import dataclass
from math import inf
from typing import Literal

Precision = Literal["float32", "bf16"]  # of a trained network in use
# A test protocol: the center crop, the five unflipped crops of 4.1, the same five flipped, or all ten.
Views = Literal["center", "five", "flipped", "ten"]


@dataclass(frozen=True)
class ColorNoiseConfig:
    """PCA color noise (4.1).

    std: of the draw along each axis, in units of the axis; 0 adds none. along: `std` scales by the standard deviation of
    the training set's pixels, as the run did; `variance` by the eigenvalue, as the text reads, of pixels in 0..1. divide: the
    whole crop is divided by it while noise is on. end_epoch: from there on none is added.
    """

    std: float
    along: Literal["std", "variance"]
    divide: float
    end_epoch: int | None

    def __post_init__(self) -> None:
        if not 0 <= self.std < inf:
            raise ValueError(f"std: must be at least 0, got {self.std}")
        if not 0 < self.divide < inf:
            raise ValueError(f"divide: must be above 0, got {self.divide}")


@dataclass(frozen=True)
class AugmentConfig:
    """What training does to images (4.1).

    crop_offsets: 33 on each axis in the run, 32 in the text. crop_run: that many consecutive samples share a crop and flip.
    """

    crop: Literal["random", "center"]
    crop_offsets: int
    crop_run: int
    flip: bool
    color_noise: ColorNoiseConfig

    def __post_init__(self) -> None:
        if self.crop_offsets < 1 or self.crop_run < 1:
            raise ValueError(f"crop_offsets: must be at least 1, as crop_run, got {self.crop_offsets} and {self.crop_run}")

    @property
    def protocols(self) -> tuple[Views, ...]:
        """What a network trained so is tested by: first the center crop, then many crops, which follow the training.

        Flipped crops count only where training flips; elsewhere their errors stand beside the others'.
        """
        return ("center", "ten") if self.flip else ("center", "five", "flipped", "ten")

    def check_side(self, side_px: int, crop_px: int) -> None:
        """Raises ValueError unless images of side_px x side_px pixels have room for every crop of crop_px x crop_px."""
        if side_px < crop_px:
            raise ValueError(f"crop: a crop is {crop_px} x {crop_px} pixels, the images have {side_px} a side")
        most = side_px - crop_px + 1
        if self.crop == "random" and self.crop_offsets > most:
            raise ValueError(f"crop_offsets: must be at most {most} for images of {side_px} pixels, got {self.crop_offsets}")
