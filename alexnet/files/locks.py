"""Locks among threads and processes that a dead process cannot keep: the kernel drops a flock with its holder."""

import contextlib
import errno
import fcntl
import os
import stat
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
    """Holds a lock file, and removes it. Gives up when its holder makes no progress for `patience_seconds`.

    Raises:
        Busy: it gave up.
        DataError: something else stands at `path`: a folder, a pipe, or a link, which is not followed.
        OSError: as `open`.
    """
    seen, deadline = progress(), time.monotonic() + patience_seconds
    while (file := _try_flock(path)) is None:
        now = progress()
        if now != seen:
            seen, deadline = now, time.monotonic() + patience_seconds
        if time.monotonic() >= deadline:
            raise Busy(
                f"{what}: process {_holder(path)} has held {path} for {patience_seconds:.0f} s without progress; "
                "end it and run again"
            )
        time.sleep(POLL_SECONDS)
    try:
        os.pwrite(file, f"{os.getpid():<32}".encode(), 0)
        yield
    finally:
        if _is_at(path, file):  # its folder may have been removed meanwhile, and another lock made
            path.unlink(missing_ok=True)  # while it is held: others waiting for this file see that it is no longer the lock
        os.close(file)


def _try_flock(path: Path) -> int | None:
    """The lock file, locked; None when another holds it or has just removed it."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise _misplaced(path) from None
        raise
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise _misplaced(path)
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if _is_at(path, file):
            return file
    os.close(file)
    return None


def _misplaced(path: Path) -> DataError:
    return DataError(f"{path}: a lock is kept there, and found is a link, a folder or a pipe; remove it and run again")


def _is_at(path: Path, file: int) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _holder(path: Path) -> str:
    with contextlib.suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8", errors="replace")[:32].strip() or "?"
    return "?"
