"""What infra notes in files of its own: written whole, and only regular files are read, for anything may be in their place."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

_MOST = 64 << 20  # bytes of a file


def read(path: Path) -> bytes | None:
    """The bytes of a file; None where there is none, or a folder, a pipe, a device, a ring of links, or more than 64 MiB.

    Raises:
        OSError: it is there and may not be read, which says nothing about what is in it.
    """
    return path.read_bytes() if path.is_file() and path.stat().st_size <= _MOST else None


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where `read` returns None or it is damaged."""
    try:
        return json.loads(read(path) or b"")
    except (ValueError, RecursionError):
        return None


def write(path: Path, content: bytes, mode: int = 0o666) -> None:
    """Writes a file whole or not at all; what else is in its place is removed."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
        file.write(content)
        os.fsync(file.fileno())
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    part.replace(path)


def remove(path: Path) -> None:
    """Removes what is there, if anything: also a folder; of a link the link."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
