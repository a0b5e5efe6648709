"""Reads what others may have written: regular files of a bounded size, and JSON without what its grammar does not have."""

import json
import math
import os
import stat
from collections.abc import Sequence
from io import BufferedReader
from pathlib import Path
from typing import Any

from alexnet.errors import DataError

LARGEST = 64 << 20  # bytes of a document; the manifest of ImageNet's shards is smaller by a factor of 4
_SHOWN = 200  # characters of a value in an error


def open_regular(path: Path) -> BufferedReader:
    """A file for reading, opened without waiting for the other end of a pipe.

    Raises:
        DataError: it is a pipe, a device or a socket.
        OSError: as `open`, also for a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return open(descriptor, "rb")  # noqa: PTH123  # a descriptor has no path
    os.close(descriptor)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(21, os.strerror(21), str(path))
    raise DataError(f"{path}: is a pipe, a device or a socket; give a regular file")


def read_bytes(path: Path, most: int = LARGEST) -> bytes:
    """The bytes of a regular file of at most `most` bytes. Raises as `open_regular`, and DataError for a larger one."""
    with open_regular(path) as file:
        if (size := os.fstat(file.fileno()).st_size) > most:
            raise DataError(f"{path}: has {size:,} bytes; at most {most:,} are read")
        return file.read(size)  # not `most`, for which room is made at once


def reason(error: Exception) -> str:
    """What a library says of a file that it cannot read: the error's kind and its first words, for it may repeat the file."""
    return f"{type(error).__name__}: {str(error)[:_SHOWN]}"


def loads(data: bytes) -> Any:
    """What a JSON document in UTF-8 holds.

    Raises:
        ValueError: it is damaged, nested too deeply, has a key twice, or a number that is not finite.
    """
    try:
        text = data.decode()
        tree = json.loads(text, object_pairs_hook=_object, parse_constant=_refuse, parse_float=_float)
        if "\\u" in text:
            json.dumps(tree, ensure_ascii=False).encode()  # half of a surrogate pair, which is no text
    except RecursionError:
        raise ValueError("is nested too deeply") from None
    except ValueError as error:  # without Python's advice for whole numbers of more than 4,300 digits
        raise ValueError(str(error).partition("; use sys.")[0]) from None
    return tree


def shown(value: object) -> str:
    """A value as an error shows it: in a line, without the terminal's own signs, and cut when it is long."""
    try:
        text = repr(value)
    except RecursionError:
        return "something nested too deeply"
    except ValueError:
        return "a number of thousands of digits"
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"has {shown(next(name for name in names if names.count(name) > 1))} twice")
    return tree


def _float(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        _refuse(text)
    return value


def _refuse(text: str) -> None:
    raise ValueError(f"has the number {text[:_SHOWN]}, which is not finite")
