"""The source `solar-cells`: 2,624 grey photographs of solar cells, 300x300, inside the package elpv-dataset.

A class is a cell's type (mono, poly) and whether a defect is at least as likely as not. The photographs are licensed
CC BY-NC-SA 4.0, for non-commercial use only, so the package is installed only when it is asked for.
"""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

from alexnet.errors import DataError
from pipelines.runtime import environment
from pipelines.sources.base import LICENSES
from pipelines.sources.folder import FolderSource, LocalTree
from pipelines.sources.packaged import write_once


def open_solar_cells() -> FolderSource:
    """The photographs, copied from the package below .local/sources/solar-cells when they are not there yet."""
    root = environment.LOCAL / "sources" / "solar-cells"
    write_once(root, _images)
    return FolderSource(LocalTree(root), "solar-cells")


def _images() -> Iterator[tuple[str, bytes]]:
    """Path and PNG of every cell. Lines of labels.csv: file, probability of a defect, type; nothing of the package is run."""
    folder = _data()
    for line in (folder / "labels.csv").read_text().splitlines():
        name, probability, kind = line.split()
        state = "defective" if float(probability) >= 0.5 else "sound"
        path = folder / name
        if path.resolve().parent != (folder / "images").resolve():
            raise DataError(f"solar-cells: labels.csv names {name!r}, outside its images; install the package again")
        yield f"{kind}-{state}/{path.name}", path.read_bytes()


def _data() -> Path:
    spec = importlib.util.find_spec("elpv_dataset")
    folder = Path(spec.origin).parent / "data" if spec and spec.origin else None
    if folder is None or not (folder / "labels.csv").is_file():
        raise DataError(
            "solar-cells: the package elpv-dataset, which holds them, is not installed; "
            f"run `make solar-cells` if its license suits: {LICENSES['solar-cells']}"
        )
    return folder
