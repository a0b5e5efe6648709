"""Folders of images that come out of a package: written once, whole or not at all."""

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path


def write_once(root: Path, files: Callable[[], Iterable[tuple[str, bytes]]]) -> None:
    """Writes path and bytes of every file below `root`, unless it is there.

    Their times are set to 0, so that every machine's listing is the same and a file that is changed later shows.
    """
    if root.is_dir():
        return
    part = root.with_name(f".{root.name}.{os.getpid()}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        for name, data in files():
            path = part / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            os.utime(path, (0, 0))
        os.sync()
        _rename(part, root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _rename(part: Path, root: Path) -> None:
    try:
        part.rename(root)
    except OSError:
        if not root.is_dir():  # else another process was first
            raise
