"""Locks among threads and processes that a dead process cannot keep: the kernel drops a flock with its holder."""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from alexnet.errors import DataError

POLL_SECONDS = 0.05


class Busy(DataError):
    """Another process, or thread, holds a lock for too long."""


@contextlib.contextmanager
def flock(
    path: Path,
    patience_seconds: float,
    what: str,
    progress: Callable[[], int] = lambda: 0,
) -> Iterator[None]:
    """Holds a lock file. Gives up when its holder makes no progress for `patience_seconds`."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        seen, deadline = progress(), time.monotonic() + patience_seconds
        while not _try_flock(file):
            now = progress()
            if now != seen:
                seen, deadline = now, time.monotonic() + patience_seconds
            if time.monotonic() >= deadline:
                holder = os.pread(file, 32, 0).decode(errors="replace").strip() or "?"
                raise Busy(
                    f"{what}: process {holder} has held {path} for {patience_seconds:.0f} s without progress; "
                    "end it and run again"
                )
            time.sleep(POLL_SECONDS)
        os.pwrite(file, f"{os.getpid():<32}".encode(), 0)
        yield
    finally:
        os.close(file)


def _try_flock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
