"""What is done to an image before this network sees it, as a torchvision v2 transform that works on Pillow's images.

A release carries this file, which needs nothing else of the project (pip install torch torchvision safetensors pillow):

    transform = make(Path("."))  # the folder with config.json and model.safetensors
    crop = transform(PIL.Image.open("photo.jpg"))  # open, not loaded: a large JPEG is then decoded at a part of its size
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from PIL.Image import Transpose as Turn
from safetensors import safe_open
from torch import nn

_LARGE_PX = 1 << 23  # pixels above which other images than JPEGs are shrunk before they are resized
_ORIENTATION = 0x0112  # EXIF's tag
_TURNS = dict(enumerate((Turn.FLIP_LEFT_RIGHT, Turn.ROTATE_180, Turn.FLIP_TOP_BOTTOM, Turn.TRANSPOSE), 2))
_TURNS |= {6: Turn.ROTATE_270, 7: Turn.TRANSVERSE, 8: Turn.ROTATE_90}
_BACK = {6: 8, 8: 6}  # the others undo themselves


def make(folder: Path) -> Any:
    """A v2.Compose from an image to the center crop that the network reads: float32, 3 x side x side, the mean subtracted."""
    from torchvision.transforms import v2  # an optional dependency

    how = json.loads((folder / "config.json").read_bytes())["preprocessing"]
    with safe_open(folder / "model.safetensors", "pt") as file:
        mean = file.get_tensor(how["subtract"])
    crop = CenterCrop(how["side_px"], how["crop_px"], how["filter"], upright=how["exif_orientation"] == "applied")
    start, px = crop.start, how["crop_px"]
    center = mean[start : start + px, start : start + px].permute(2, 0, 1).contiguous()
    subtract = v2.Lambda(partial(torch.sub, other=center))
    return v2.Compose([crop, v2.PILToTensor(), v2.ToDtype(torch.float32), subtract])


class CenterCrop(nn.Module):
    """The central square as RGB, its side resized to `side_px`, and of that the central `crop_px`; upright: as EXIF says."""

    def __init__(self, side_px: int, crop_px: int, resize_filter: str, *, upright: bool = False) -> None:
        super().__init__()
        self.upright = upright
        self.side_px, self.crop_px, self.resize_filter = side_px, crop_px, resize_filter
        self.start = (side_px - crop_px) // 2

    def forward(self, image: Image.Image) -> Image.Image:
        """The crop of an image."""
        orientation = int(image.getexif().get(_ORIENTATION) or 1)
        is_turned = image.format == "TIFF"  # by Pillow, as it loads it
        square = self._resize(_rgb(image, 2 * self.side_px))
        crop = square.crop((self.start, self.start, self.start + self.crop_px, self.start + self.crop_px))
        if orientation not in _TURNS or self.upright == is_turned:
            return crop
        return crop.transpose(_TURNS[orientation if self.upright else _BACK.get(orientation, orientation)])

    def _resize(self, image: Image.Image) -> Image.Image:
        width, height = image.size
        side = min(image.size)
        if width == height == self.side_px:
            return image
        area = Image.Resampling.BOX if side > self.side_px else Image.Resampling.BICUBIC
        kernel = Image.Resampling.BILINEAR if self.resize_filter == "triangle" else area
        left, top = (width - side) / 2, (height - side) / 2
        return image.resize((self.side_px, self.side_px), kernel, (left, top, left + side, top + side))


def _rgb(image: Image.Image, min_side_px: int) -> Image.Image:
    """As RGB; at 1/2, 1/4 or 1/8 of its size where its shorter side stays at least min_side_px and it is a JPEG, or large."""
    is_jpeg = image.format in ("JPEG", "MPO") and image.mode != "CMYK"
    factor = 1
    if is_jpeg or image.width * image.height > _LARGE_PX:
        factor = next((factor for factor in (8, 4, 2) if min(image.size) >= factor * min_side_px), 1)
    if factor > 1 and image.draft(None, (image.width // factor, image.height // factor)):
        factor = 1  # the decoder has shrunk it
    if image.mode.startswith("I;16") or image.mode == "I":  # the upper 8 of 16 bits
        image = Image.fromarray((np.clip(np.asarray(image, np.int64), 0, 65535) >> 8).astype(np.uint8))
    image = image.convert("RGB")
    return image.reduce(factor) if factor > 1 else image
