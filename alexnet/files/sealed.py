"""A program's own notes on the disk with their SHA-256 in front: a note of which a bit has changed counts as missing."""

import hashlib
from pathlib import Path

from alexnet.errors import DataError
from alexnet.files.strict import LARGEST, read_bytes

_DIGITS = 64


def seal(data: bytes) -> bytes:
    """The data behind its digest and a line break."""
    return hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def read_sealed(path: Path) -> bytes | None:
    """The data of a file that `seal` made; None when it is missing, or is not what was written."""
    try:
        sealed = read_bytes(path, 16 * LARGEST)
    except (OSError, DataError):
        return None
    data = sealed[_DIGITS + 1 :]
    return data if seal(data) == sealed else None
