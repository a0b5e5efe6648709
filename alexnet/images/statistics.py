"""Pixel statistics of the training set: the mean image, and what color noise needs (section 4.1).

Sums are integers, so neither the order of the images nor their division among workers changes a bit of the result.
"""

import ctypes
import io
import math
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, BadZipFile, ZipFile

import numpy as np
from jaxtyping import Float32, Float64, Int64, UInt8, UInt16

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.files.strict import read_bytes, reason
from alexnet.ops import build_cpp

_MAX_FILE_BYTES = 1 << 28
_HEADER = 256  # bytes of a stored array before its numbers, at most
_IMAGES_PER_BLOCK = 65535 // 255  # whose sum fits 16 bits


class PixelSums:
    """Sums over images of one size: of every pixel, and of the products of every pair of channels.

    products: the upper triangle of a symmetric matrix, summed over all pixels; below the diagonal it is zero.
    """

    def __init__(self, side_px: int) -> None:
        self.images = 0
        self._sums: Int64[np.ndarray, "h w 3"] = np.zeros((side_px, side_px, 3), np.int64)
        self.products: Int64[np.ndarray, "3 3"] = np.zeros((3, 3), np.int64)
        self._block: UInt16[np.ndarray, "h w 3"] = np.zeros((side_px, side_px, 3), np.uint16)
        self._block_images = 0

    @property
    def sums(self) -> Int64[np.ndarray, "h w 3"]:
        """The sum of the images."""
        sums: Int64[np.ndarray, "h w 3"] = self._sums + self._block
        return sums

    def add(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """Adds one image."""
        self.images += 1
        if (kernels := _kernels()) is not None:
            image = np.ascontiguousarray(image)
            kernels.add_pixels(image.ctypes.data, image.size, self._block.ctypes.data, self.products.ctypes.data)
        else:
            self._add(image)
        self._block_images += 1
        if self._block_images == _IMAGES_PER_BLOCK:
            self._sums += self._block
            self._block[:] = 0
            self._block_images = 0

    def _add(self, image: UInt8[np.ndarray, "h w 3"]) -> None:
        """The same without a compiler: float64 holds the products exactly, in ten times the time."""
        self._block += image
        channels = image.reshape(-1, 3).T.astype(np.float64)
        for first, second in combinations_with_replacement(range(3), 2):
            # Not BLAS: its threads would compete with those that decode.
            self.products[first, second] += int(np.einsum("p,p->", channels[first], channels[second]))

    def merge(self, other: "PixelSums") -> None:
        """Adds all images of `other`."""
        self.images += other.images
        self._sums += other.sums
        self.products += other.products

    def to_bytes(self) -> bytes:
        """A compressed NPZ; equal sums are equal bytes."""
        file = io.BytesIO()
        np.savez_compressed(file, images=np.int64(self.images), sums=self.sums, products=self.products)
        return file.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes, side_px: int) -> "PixelSums":
        """What `to_bytes` wrote of images of this size. Raises ValueError for anything else, unread."""
        sums = cls(side_px)
        wanted = {"images": np.zeros((), np.int64), "sums": sums._sums, "products": sums.products}
        try:
            with ZipFile(io.BytesIO(data)) as archive:
                if any(archive.getinfo(f"{name}.npy").file_size > array.nbytes + _HEADER for name, array in wanted.items()):
                    raise ValueError("has larger arrays")
            with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in wanted}
        except (OSError, KeyError, EOFError, BadZipFile, RuntimeError, NotImplementedError, zlib.error) as error:
            raise ValueError(f"not pixel sums: {reason(error)}") from None
        for name, array in wanted.items():
            if (found[name].dtype, found[name].shape) != (array.dtype, array.shape):
                raise ValueError(f"not pixel sums: {name} is {found[name].dtype} of {found[name].shape}")
        sums.images, sums._sums, sums.products = int(found["images"]), found["sums"], found["products"]
        return sums


@cache
def _kernels() -> ctypes.CDLL | None:
    """statistics.cpp, compiled; None without a compiler."""
    kernels = build_cpp.load(Path(__file__).with_suffix(".cpp"))
    if kernels is not None:
        kernels.add_pixels.argtypes = [ctypes.c_void_p, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
        kernels.add_pixels.restype = None
    return kernels


_SWEEPS = 12  # over the three entries above the diagonal; a 3x3 matrix needs 5
_ZIP_VERSION, _ZIP_DATE = 45, 33  # with 64-bit sizes; the first of January 1980
_ARRAYS: dict[str, tuple[type, tuple[int, ...]]] = {  # 0: the side of the images
    "mean_image": (np.float32, (0, 0, 3)),
    "channel_mean": (np.float64, (3,)),
    "channel_std": (np.float64, (3,)),
    "eigenvectors": (np.float64, (3, 3)),
    "eigen_std": (np.float64, (3,)),
    "images": (np.int64, ()),
}


def _read_array(archive: ZipFile, name: str) -> np.ndarray:
    """An array that is stored as it is: what it takes in memory is no more than what it has in the file."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.compress_type != ZIP_STORED or entry.file_size > _MAX_FILE_BYTES:
        raise ValueError(f"{name} is compressed")
    data = io.BytesIO(archive.read(entry))
    if np.lib.format.read_magic(data) != (1, 0):
        raise ValueError(f"{name} is of another version")
    shape, _, kind = np.lib.format.read_array_header_1_0(data)
    if kind.hasobject or math.prod(shape) * kind.itemsize != entry.file_size - data.tell():
        raise ValueError(f"{name} has not the bytes of its {shape} numbers")
    data.seek(0)
    array: np.ndarray = np.lib.format.read_array(data, allow_pickle=False)
    return array


def eigen(matrix: list[list[float]]) -> tuple[Float64[np.ndarray, "3"], Float64[np.ndarray, "3 3"]]:
    """Eigenvalues of a symmetric 3x3 matrix, falling, and eigenvectors, a column each, whose largest entry is positive.

    By Jacobi's rotations in Python's floats: sums, products, quotients and square roots in one order are the same bits on every
    processor. LAPACK's last digits, and all of them where two eigenvalues are equal, follow the BLAS kernel.
    """
    a, v = [list(row) for row in matrix], [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    for p, q in ((0, 1), (0, 2), (1, 2)) * _SWEEPS:
        if a[p][q] == 0.0:
            continue
        slope = (a[q][q] - a[p][p]) / (2.0 * a[p][q])
        tangent = math.copysign(1.0, slope) / (abs(slope) + math.sqrt(slope * slope + 1.0))
        cosine = 1.0 / math.sqrt(tangent * tangent + 1.0)
        sine = tangent * cosine
        for rows in (a, v):
            for row in rows:
                row[p], row[q] = cosine * row[p] - sine * row[q], sine * row[p] + cosine * row[q]
        for k in range(3):
            a[p][k], a[q][k] = cosine * a[p][k] - sine * a[q][k], sine * a[p][k] + cosine * a[q][k]
        a[p][q] = a[q][p] = 0.0
    order = sorted(range(3), key=lambda k: -a[k][k])
    vectors = np.array([[row[k] for k in order] for row in v])
    return np.array([a[k][k] for k in order]), vectors * np.sign(vectors[np.abs(vectors).argmax(0), range(3)])


def _npz(arrays: Mapping[str, np.ndarray]) -> bytes:
    """A ZIP of NPY files, not compressed; its bytes are those of `np.savez`, whose headers differ between Python's releases."""
    files, directory = bytearray(), bytearray()
    for array_name, array in arrays.items():
        file = io.BytesIO()
        np.lib.format.write_array(file, array, (1, 0), allow_pickle=False)
        name, body = f"{array_name}.npy".encode(), file.getvalue()
        crc, size = zlib.crc32(body), len(body)
        whose = (_ZIP_VERSION | 3 << 8, _ZIP_VERSION, 0, ZIP_STORED, 0, _ZIP_DATE, crc, size, size, len(name), 0, 0, 0, 0)
        directory += struct.pack("<4s6H3I5H2I", b"PK\1\2", *whose, 0o600 << 16, len(files)) + name
        files += struct.pack(
            "<4s5H3I2H", b"PK\3\4", _ZIP_VERSION, 0, ZIP_STORED, 0, _ZIP_DATE, crc, *[0xFFFFFFFF] * 2, len(name), 20
        )
        files += name + struct.pack("<2H2Q", 1, 16, size, size) + body
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, len(arrays), len(arrays), len(directory), len(files), 0)
    return bytes(files + directory + end)


@dataclass(frozen=True)
class PixelStatistics:
    """Statistics of the training images at a shard's size, RGB, on the scale 0..255, before JPEG compression.

    eigenvectors: of the channels' covariance, a column each, by falling eigenvalue; each column's largest entry is positive.
    eigen_std: the square roots of the eigenvalues.
    """

    mean_image: Float32[np.ndarray, "h w 3"]
    channel_mean: Float64[np.ndarray, "3"]
    channel_std: Float64[np.ndarray, "3"]
    eigenvectors: Float64[np.ndarray, "3 3"]
    eigen_std: Float64[np.ndarray, "3"]
    images: int

    @classmethod
    def from_sums(cls, sums: PixelSums) -> "PixelStatistics":
        """The statistics of at least one image."""
        image_sum = sums.sums
        pixels = sums.images * image_sum.shape[0] * image_sum.shape[1]
        totals = image_sum.sum((0, 1))
        products = np.triu(sums.products) + np.triu(sums.products, 1).T
        # n * sum(xy) - sum(x) * sum(y) in Python's integers: no digit is lost to cancellation.
        exact = [[pixels * int(products[i, j]) - int(totals[i]) * int(totals[j]) for j in range(3)] for i in range(3)]
        covariance = np.array([[value / pixels**2 for value in row] for row in exact], np.float64)
        values, vectors = eigen(covariance.tolist())
        return cls(
            mean_image=(image_sum / sums.images).astype(np.float32),
            channel_mean=totals / pixels,
            channel_std=np.sqrt(np.diag(covariance)),
            eigenvectors=vectors,
            eigen_std=np.sqrt(np.maximum(values, 0)),
            images=sums.images,
        )

    def write(self, path: Path) -> None:
        """Writes an uncompressed NPZ, atomically; equal statistics are equal bytes, whichever Python writes them."""
        arrays: dict[str, Any] = {field.name: np.asarray(getattr(self, field.name)) for field in fields(self)}
        atomic_write_bytes(path, _npz(arrays))

    @classmethod
    def read(cls, path: Path) -> "PixelStatistics":
        """Reads what `write` wrote. Raises DataError for any other file, or none."""
        try:
            data = read_bytes(path, _MAX_FILE_BYTES)
            with ZipFile(io.BytesIO(data)) as archive:
                found: dict[str, Any] = {field.name: _read_array(archive, field.name) for field in fields(cls)}
        except FileNotFoundError:
            raise DataError(f"{path}: no such file; run the shard stage") from None
        except (OSError, KeyError, ValueError, EOFError, BadZipFile, RuntimeError, zlib.error) as error:
            raise DataError(f"{path}: not pixel statistics: {reason(error)}; run the shard stage again") from None
        side = len(found["mean_image"]) if found["mean_image"].ndim else 0
        for name, (kind, shape) in _ARRAYS.items():
            array, wanted = found[name], tuple(side if size == 0 else size for size in shape)
            if array.dtype != kind or array.shape != wanted or not np.isfinite(array).all():
                raise DataError(
                    f"{path}: not pixel statistics: {name} is {array.dtype} of {array.shape}, not finite {np.dtype(kind)} of "
                    f"{wanted}; run the shard stage again"
                )
        found["images"] = int(found["images"])
        return cls(**found)
