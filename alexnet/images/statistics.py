"""Pixel statistics of the training set: the mean image, and what color noise needs (section 4.1).

Sums are whole numbers, so neither the order of the images nor how they are shared out changes a bit of the result.
"""

import ctypes
import io
import os
from dataclasses import dataclass
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt16

from alexnet.errors import DataError
from alexnet.ops import build_cpp as compiled

_IMAGES = 65535 // 255  # whose sum 16 bits hold


class PixelSums:
    """Adds images up: `sums` of every pixel, `products` of every pair of channels over all pixels."""

    def __init__(self, side_px: int) -> None:
        self.images = 0
        self._sums: Int64[np.ndarray, "h w 3"] = np.zeros((side_px, side_px, 3), np.int64)
        self.products: Int64[np.ndarray, "3 3"] = np.zeros((3, 3), np.int64)
        self._added: UInt16[np.ndarray, "h w 3"] = np.zeros((side_px, side_px, 3), np.uint16)
        self._in_added = 0

    @property
    def sums(self) -> Int64[np.ndarray, "h w 3"]:
        """Of every pixel over the images."""
        sums: Int64[np.ndarray, "h w 3"] = self._sums + self._added
        return sums

    def add(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Counts one image."""
        self.images += 1
        if (kernels := _kernels()) is not None:
            image = np.ascontiguousarray(image)
            kernels.add_pixels(image.ctypes.data, image.size, self._added.ctypes.data, self.products.ctypes.data)
        else:
            self._add(image)
        self._in_added += 1
        if self._in_added == _IMAGES:
            self._sums += self._added
            self._added[:] = 0
            self._in_added = 0

    def _add(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """The same as the kernel, where there is no compiler: doubles hold the products exactly, at ten times the time."""
        self._added += image
        channels = image.reshape(-1, 3).T.astype(np.float64)
        for first, second in combinations_with_replacement(range(3), 2):
            # No BLAS: its own threads would fight with those that decode.
            self.products[first, second] += int(np.einsum("p,p->", channels[first], channels[second]))

    def merge(self, other: "PixelSums") -> None:
        """Counts all images of `other`."""
        self.images += other.images
        self._sums += other.sums
        self.products += other.products

    def to_bytes(self) -> bytes:
        """A compressed NPZ; equal sums are equal bytes."""
        file = io.BytesIO()
        np.savez_compressed(file, images=np.int64(self.images), sums=self.sums, products=self.products)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "PixelSums":
        """What `to_bytes` wrote."""
        with np.load(io.BytesIO(data)) as arrays:
            sums = cls(arrays["sums"].shape[0])
            sums.images, sums._sums, sums.products = int(arrays["images"]), arrays["sums"], arrays["products"]
        return sums


@cache
def _kernels() -> ctypes.CDLL | None:
    """pixels.cpp, compiled; no torch is needed for it."""
    kernels = compiled.load(Path(__file__).with_suffix(".cpp"))
    if kernels is not None:
        kernels.add_pixels.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        kernels.add_pixels.restype = None
    return kernels


@dataclass(frozen=True)
class PixelStatistics:
    """Over the training images in a shard's size, RGB, on the scale 0..255, before they are compressed.

    eigenvectors: columns, of the covariance of the three channels, the largest first; each column's largest entry is
    positive. eigen_std: the square roots of the eigenvalues.
    """

    mean_image: Float32[np.ndarray, "h w 3"]
    channel_mean: Float64[np.ndarray, "3"]
    channel_std: Float64[np.ndarray, "3"]
    eigenvectors: Float64[np.ndarray, "3 3"]
    eigen_std: Float64[np.ndarray, "3"]
    images: int

    @classmethod
    def of(cls, sums: PixelSums) -> "PixelStatistics":
        """The statistics of at least one image."""
        whole = sums.sums
        pixels = sums.images * whole.shape[0] * whole.shape[1]
        totals = whole.sum((0, 1))
        products = np.triu(sums.products) + np.triu(sums.products, 1).T
        # n * sum(xy) - sum(x) * sum(y), in whole numbers of any size: no digit cancels.
        exact = [[pixels * int(products[i, j]) - int(totals[i]) * int(totals[j]) for j in range(3)] for i in range(3)]
        covariance = np.array([[value / pixels**2 for value in row] for row in exact], np.float64)
        values, vectors = np.linalg.eigh(covariance)
        values, vectors = values[::-1], vectors[:, ::-1]
        vectors = vectors * np.sign(vectors[np.abs(vectors).argmax(0), range(3)])
        return cls(
            mean_image=(whole / sums.images).astype(np.float32),
            channel_mean=totals / pixels,
            channel_std=np.sqrt(np.diag(covariance)),
            eigenvectors=np.ascontiguousarray(vectors),
            eigen_std=np.sqrt(np.maximum(values, 0)),
            images=sums.images,
        )

    def write(self, path: Path) -> None:
        """Writes an uncompressed NPZ; equal statistics are equal bytes. The file appears whole or not at all."""
        part = path.with_name(f".{path.name}.part")
        try:
            with part.open("wb") as file:
                np.savez(
                    file,
                    mean_image=self.mean_image,
                    channel_mean=self.channel_mean,
                    channel_std=self.channel_std,
                    eigenvectors=self.eigenvectors,
                    eigen_std=self.eigen_std,
                    images=np.int64(self.images),
                )
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    @classmethod
    def read(cls, path: Path) -> "PixelStatistics":
        """The statistics in a file. Raises DataError when it holds none."""
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                return cls(
                    mean_image=arrays["mean_image"],
                    channel_mean=arrays["channel_mean"],
                    channel_std=arrays["channel_std"],
                    eigenvectors=arrays["eigenvectors"],
                    eigen_std=arrays["eigen_std"],
                    images=int(arrays["images"]),
                )
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; run the shard stage") from None
        except (KeyError, ValueError, EOFError, BadZipFile, TypeError, AttributeError) as error:
            raise DataError(f"{path}: not pixel statistics: {error!r}; run the shard stage again") from None
