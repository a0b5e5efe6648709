"""Responses as pixels: maps side by side, units as a grid, in colors of one scale."""

import base64
import io

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

Rgb = UInt8[np.ndarray, "h w 3"]
QUANTILE = 0.998  # of the values' sizes, which gets the last color: one outlier does not darken the rest
_GAP = 1  # pixels between maps


def limit(values: Tensor) -> float:
    """The size of value that gets the last color of a scale for these values."""
    sizes = values.abs().flatten()
    at = max(1, round(QUANTILE * len(sizes)))
    return float(sizes.kthvalue(at).values) or float(sizes.max()) or 1.0


def colored(values: Float[Tensor, "*n h w"], most: float, signed: bool) -> UInt8[np.ndarray, "*n h w 3"]:
    """Values as colors: of 0 and above dark to bright; signed ones blue below 0, white at 0, red above."""
    from matplotlib import colormaps

    scaled = (values / (2 * most) + 0.5 if signed else values / most).clamp(0, 1)
    colors = colormaps["RdBu_r" if signed else "inferno"](scaled.numpy())[..., :3]
    pixels: UInt8[np.ndarray, "*n h w 3"] = (colors * 255).round().astype(np.uint8)
    return pixels


def sheet(maps: Float[Tensor, "n h w"], columns: int, most: float | None = None) -> UInt8[np.ndarray, "h w 4"]:
    """Maps in rows of `columns`, all on one scale, which ends at `most` or at `limit`; between them it is transparent."""
    signed = bool((maps < 0).any())
    most = most or limit(maps)
    tiles = np.pad(colored(maps, most, signed), ((0, 0),) * 3 + ((0, 1),), constant_values=255)
    tiles = np.pad(tiles, ((0, -len(tiles) % columns), (0, _GAP), (0, _GAP), (0, 0)))
    rows, height, width = len(tiles) // columns, *tiles.shape[1:3]
    joined = tiles.reshape(rows, columns, height, width, 4).swapaxes(1, 2).reshape(rows * height, columns * width, 4)
    return joined[:-_GAP, :-_GAP]


def unit_grid(units: Float[Tensor, " n"], columns: int, most: float | None = None) -> Rgb:
    """Units in rows of `columns`, a pixel each; the last row is filled up with zeros."""
    filled = torch.cat([units, units.new_zeros(-len(units) % columns)]).reshape(-1, columns)
    return colored(filled, most or limit(units), bool((units < 0).any()))


def png(pixels: UInt8[np.ndarray, "h w channels"]) -> bytes:
    """A PNG file of these pixels."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def data_uri(pixels: UInt8[np.ndarray, "h w channels"]) -> str:
    """The same for a page that needs no other file."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"
