"""A process that is killed, or told of an error of the disk, at a file operation or after a byte that it writes.

An operation is what Python's audit hooks report of files: open, rename, remove, mkdir, rmdir, link.
"""

import errno
import os
import resource
import signal
import sys
from collections.abc import Callable, Iterator
from functools import partial

from alexnet.files import atomic

_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "shutil.rmtree"}
_FINISHED, _RAISED = 0, 3


def killed_at_every_operation(write: Callable[[], None], folder: str) -> Iterator[int]:
    """Runs `write` in a fork, killed before its first operation in `folder`, then before its second, until it finishes.

    Yields the number of operations before the kill.
    """
    yield from _at_every_operation(write, folder, lambda: os.kill(os.getpid(), signal.SIGKILL), -signal.SIGKILL)


def failed_at_every_operation(write: Callable[[], None], folder: str, error: int = errno.EIO) -> Iterator[int]:
    """The same, where the operation raises an OSError in place of the kill. It must come out of `write` or be of no matter."""

    def fail() -> None:
        raise OSError(error, os.strerror(error))

    yield from _at_every_operation(write, folder, fail, _RAISED)


def _at_every_operation(write: Callable[[], None], folder: str, strike: Callable[[], None], status: int) -> Iterator[int]:
    at = 0
    while True:
        left = os.pipe()
        ended = _fork(partial(_run_to, write, folder, at, strike, left[1]))
        os.close(left[1])
        struck = os.read(left[0], 1)
        os.close(left[0])
        assert ended in (status, _FINISHED), f"operation {at}: status {ended}"
        if not struck:
            assert ended == _FINISHED
            return
        yield at
        at += 1


def _run_to(write: Callable[[], None], folder: str, at: int, strike: Callable[[], None], told: int) -> None:
    seen = 0

    def hook(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal seen
        if event in _EVENTS and str(arguments[0]).startswith(folder):
            seen += 1
            if seen == at + 1:
                os.write(told, b"x")
                strike()

    sys.addaudithook(hook)
    write()


def cut_after(write: Callable[[], None], size: int, *, kill: bool) -> bool:
    """Runs `write` in a fork that may write no file longer than this. Whether it was killed, or raised EFBIG, for it."""

    def limited() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_DFL if kill else signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        write()

    ended = _fork(limited)
    assert ended in (-signal.SIGXFSZ if kill else _RAISED, _FINISHED), ended
    return ended != _FINISHED


def _fork(run: Callable[[], None]) -> int:
    """Runs it in a fork. Its status: 0, _RAISED for an OSError, 4 for any other exception, negative for a signal."""
    pid = os.fork()
    if pid == 0:
        atomic._tidied.clear()  # a process has looked nowhere yet for what others left
        status = 4
        try:
            run()
            status = _FINISHED
        except OSError:
            status = _RAISED
        finally:
            os._exit(status)
    _, ended = os.waitpid(pid, 0)
    return -os.WTERMSIG(ended) if os.WIFSIGNALED(ended) else os.WEXITSTATUS(ended)
