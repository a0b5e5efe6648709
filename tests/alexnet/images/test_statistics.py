import hashlib
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError
from alexnet.images import statistics
from alexnet.images.statistics import PixelStatistics, PixelSums, eigen


@pytest.fixture(params=["compiled", "numpy"], autouse=True, scope="module")
def _sums_are_made_by(request: pytest.FixtureRequest) -> Iterator[None]:
    """Both ways; the first is numpy's too where there is no C++ compiler."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "numpy":
            patch.setattr(statistics, "_kernels", lambda: None)
        yield


def images(count: int, seed: int = 0, side_px: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, side_px, side_px, 3)).astype(np.uint8)


def sums_of(batch: np.ndarray) -> PixelSums:
    sums = PixelSums(batch.shape[1])
    for image in batch:
        sums.add(image)
    return sums


def test_the_statistics_are_numpys() -> None:
    batch = images(20)
    found = PixelStatistics.from_sums(sums_of(batch))
    flat = batch.reshape(-1, 3).astype(float)
    assert found.images == 20
    assert np.allclose(found.mean_image, batch.astype(float).mean(0), atol=1e-4)
    assert np.allclose(found.channel_mean, flat.mean(0), rtol=1e-12)
    assert np.allclose(found.channel_std, flat.std(0), rtol=1e-12)
    covariance = np.cov(flat.T, bias=True)
    vectors, stds = found.eigenvectors, found.eigen_std
    assert np.allclose(vectors @ np.diag(stds**2) @ vectors.T, covariance)
    assert np.allclose(vectors.T @ vectors, np.eye(3))
    assert (np.diff(stds) <= 0).all()
    assert all(column[np.abs(column).argmax()] > 0 for column in vectors.T)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(-(10**6), 10**6), min_size=6, max_size=6))
def test_eigenvectors_are_lapacks(entries: list[int]) -> None:
    matrix = np.zeros((3, 3))
    matrix[np.triu_indices(3)] = entries
    matrix = matrix + np.triu(matrix, 1).T
    values, vectors = eigen(matrix.tolist())
    size = np.abs(matrix).max()
    assert np.allclose(values, np.linalg.eigvalsh(matrix)[::-1], rtol=0, atol=1e-13 * size)
    assert np.allclose(vectors.T @ vectors, np.eye(3), rtol=0, atol=1e-14)
    assert np.allclose(vectors * values @ vectors.T, matrix, rtol=0, atol=1e-13 * size)
    assert all(column[np.abs(column).argmax()] > 0 for column in vectors.T)


DIGEST = """
import hashlib, sys
from pathlib import Path
import numpy as np
from alexnet.images import statistics
if sys.argv[1] == "no compiler":
    statistics._kernels = lambda: None
digest = hashlib.sha256()
for seed in range(20):
    pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3 if seed else 1), np.uint8).repeat(1 if seed else 3, 2)
    sums = statistics.PixelSums(8)
    sums.add(pixels)
    statistics.PixelStatistics.from_sums(sums).write(Path(sys.argv[2]))
    digest.update(Path(sys.argv[2]).read_bytes())
print(digest.hexdigest())
"""


def test_the_bytes_are_the_same_on_every_processor_and_without_a_compiler(tmp_path: Path) -> None:
    """By the kernels of other processors, which OpenBLAS takes when it is asked to; the first seed's images are grey."""
    found = {
        subprocess.run(
            [sys.executable, "-c", DIGEST, "no compiler" if kernel is None else "", str(tmp_path / "pixels.npz")],
            env=os.environ | {"OPENBLAS_CORETYPE": kernel or "Haswell"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for kernel in ("Prescott", "Nehalem", "Haswell", "SkylakeX", "Zen", None)
    }
    assert len(found) == 1


@settings(deadline=None, max_examples=25)
@given(st.permutations(range(9)), st.integers(1, 8))
def test_neither_order_nor_sharing_changes_a_bit(order: list[int], cut: int) -> None:
    batch = images(9)
    first, second = sums_of(batch[order[:cut]]), sums_of(batch[order[cut:]])
    second.merge(PixelSums.from_bytes(first.to_bytes(), first.sums.shape[0]))
    assert second.to_bytes() == sums_of(batch).to_bytes()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no archive",
        sums_of(images(1)).to_bytes()[:-40],
        sums_of(images(1, side_px=9)).to_bytes(),
        sums_of(images(1, side_px=200)).to_bytes(),
        PixelSums(8).to_bytes().replace(b"sums.npy", b"sumz.npy"),
    ],
)
def test_other_bytes_are_no_pixel_sums(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"not pixel sums|larger arrays"):
        PixelSums.from_bytes(data, 8)


def test_the_bytes_of_a_file_do_not_depend_on_pythons_release(tmp_path: Path) -> None:
    numbers = np.arange(9.0).reshape(3, 3)
    PixelStatistics(np.zeros((2, 2, 3), np.float32), numbers[0], numbers[1], numbers, numbers[2], 7).write(tmp_path / "a.npz")
    digest = hashlib.sha256((tmp_path / "a.npz").read_bytes()).hexdigest()
    assert digest == "2dc084a8b6dc64f5fa55b7708d7eb70788fc31f146fab7c4ff2a391e94f4d7bd"
    with np.load(tmp_path / "a.npz") as arrays:
        assert np.array_equal(arrays["eigenvectors"], numbers)


@pytest.mark.parametrize(("images", "side_px"), [(1, 512), (1, 517), (600, 4)])
def test_many_bright_images_and_large_ones_do_not_overflow(images: int, side_px: int) -> None:
    sums = PixelSums(side_px)
    for _ in range(images):
        sums.add(np.full((side_px, side_px, 3), 255, np.uint8))
    assert (sums.sums == images * 255).all()
    assert np.array_equal(sums.products, np.triu(np.full((3, 3), images * side_px**2 * 255**2)))
    assert PixelStatistics.from_sums(sums).channel_std.tolist() == [0, 0, 0]


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(0, 9))
def test_the_sums_are_exact(side_px: int, seed: int) -> None:
    batch = images(3, seed, side_px)
    sums = sums_of(batch)
    flat = batch.reshape(-1, 3).astype(np.int64)
    assert np.array_equal(sums.sums, batch.sum(0, dtype=np.int64))
    assert np.array_equal(sums.products, np.triu(flat.T @ flat))


def test_a_file_reads_back_and_equal_statistics_are_equal_bytes(tmp_path: Path) -> None:
    found = PixelStatistics.from_sums(sums_of(images(3)))
    for name in ("a.npz", "b.npz"):
        found.write(tmp_path / name)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    again = PixelStatistics.read(tmp_path / "a.npz")
    assert all(np.array_equal(getattr(again, name), value) for name, value in vars(found).items())
    assert {path.name for path in tmp_path.iterdir()} == {"a.npz", "b.npz"}


def test_a_file_that_holds_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "pixels.npz"
    with pytest.raises(DataError, match=r"pixels\.npz: no such file; run the shard stage"):
        PixelStatistics.read(path)
    for data in (b"", b"text", b"PK\x03\x04cut"):
        path.write_bytes(data)
        with pytest.raises(DataError, match=r"pixels\.npz: not pixel statistics: .*; run the shard stage again"):
            PixelStatistics.read(path)
    np.savez(path, mean_image=np.zeros(3))
    with pytest.raises(DataError, match="not pixel statistics"):
        PixelStatistics.read(path)


@pytest.mark.parametrize(
    "change",
    [
        {"mean_image": np.zeros((2, 2, 3))},
        {"mean_image": np.zeros((2, 3, 3), np.float32)},
        {"mean_image": np.full((2, 2, 3), np.nan, np.float32)},
        {"channel_std": np.array(["a", "b", "c"])},
        {"eigenvectors": np.zeros((3, 3), complex)},
        {"eigen_std": np.zeros(2)},
        {"images": np.float64(1)},
        {"images": np.array([1, 2])},
    ],
)
def test_arrays_that_are_no_statistics_are_refused(tmp_path: Path, change: dict[str, np.ndarray]) -> None:
    path, zeros = tmp_path / "pixels.npz", np.zeros(3)
    whole: dict[str, Any] = {"mean_image": np.zeros((2, 2, 3), np.float32), "eigenvectors": np.eye(3), "images": np.int64(1)}
    whole |= {"channel_mean": zeros, "channel_std": zeros, "eigen_std": zeros}
    np.savez(path, **whole)
    assert PixelStatistics.read(path).images == 1
    np.savez(path, **whole | change)
    with pytest.raises(DataError, match="not pixel statistics: .*; run the shard stage again"):
        PixelStatistics.read(path)


def test_a_small_file_that_says_it_is_large_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "pixels.npz"
    np.savez_compressed(path, mean_image=np.zeros((4096, 4096, 3), np.float32))
    with pytest.raises(DataError, match="mean_image is compressed"):
        PixelStatistics.read(path)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6, 3)})
    with ZipFile(path, "w") as archive:
        archive.writestr("mean_image.npy", header.getvalue())
    with pytest.raises(DataError, match="mean_image has not the bytes"):
        PixelStatistics.read(path)
