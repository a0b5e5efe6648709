"""Folders of images that come out of a package: written once, whole or not at all."""

import ctypes
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
        _flush(part)
        _rename(part, root)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _flush(folder: Path) -> None:
    """Waits until the folder's filesystem is on its disk; other disks of a busy machine are not waited for."""
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:  # only Linux has it
        os.sync()
        return
    opened = os.open(folder, os.O_RDONLY)
    try:
        if syncfs(opened):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(opened)


def _rename(part: Path, root: Path) -> None:
    try:
        part.rename(root)
    except OSError:
        if not root.is_dir():  # else another process was first
            raise
