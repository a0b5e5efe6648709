"""An object into a file: hashed as it comes, and resumed where a killed process left off."""

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from alexnet.errors import DataError
from alexnet.shards.verify import Mismatch

Fetch = Callable[[str, int, int], Iterator[bytes]]  # bytes of the object of this name: from which on, and how many

_MIN_BYTES_PER_SECOND = 20_000.0
_SILENCE_SECONDS = 10.0  # a longer one is a store that is away, not a slow link: how long to wait for it is for `fetch` to say


def download(name: str, size: int, part: Path, fetch: Fetch, patience: float, on_chunk: Callable[[int], None]) -> str:
    """Appends to a part file what it lacks of an object of `size` bytes, and returns the SHA-256 of the whole.

    The part file holds the beginning of the object; one that is longer than it is emptied. Memory holds a chunk.

    Args:
        part: The file; it is made when missing, and stays when an exception is raised.
        patience: Seconds for which the bytes may arrive at less than 20 kB/s; long silences are not counted.
        on_chunk: Called with the size of every chunk that was written.

    Raises what `fetch` raises, or:
        Mismatch: the object ends early.
        DataError: it comes too slowly.
        OSError: it cannot be written.
    """
    if part.is_symlink() or (part.exists() and not part.is_file()):
        part.unlink()  # in a shared folder it may lead to somebody's file
    descriptor = os.open(part, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "ab+", buffering=0) as file:  # noqa: PTH123 - a descriptor has no path
        file.seek(0, os.SEEK_END)
        if file.tell() > size:
            file.truncate(0)
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256")
        have = before = file.tell()
        receiving, asked = 0.0, time.monotonic()
        for chunk in fetch(name, have, size - have) if have < size else ():
            silence = time.monotonic() - asked
            receiving += silence if silence < _SILENCE_SECONDS else 0.0
            wanted = memoryview(chunk)[: size - have]  # a store may send more than it was asked for
            digest.update(wanted)
            have += len(wanted)
            while wanted:
                wanted = wanted[file.write(wanted) :]
            on_chunk(len(chunk))
            if receiving >= patience:
                if have - before < _MIN_BYTES_PER_SECOND * receiving:
                    raise DataError(
                        f"{name}: only {have - before:,} bytes arrived in {receiving:.0f} s, {have:,} of {size:,} "
                        "in all; check the link to the store and run again, what was fetched is kept"
                    )
                receiving, before = 0.0, have
            asked = time.monotonic()
    if have < size:
        raise Mismatch(f"{name}: ends at byte {have:,}, the manifest says {size:,}")
    return digest.hexdigest()
