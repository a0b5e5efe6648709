"""A server in the background that is started once and never confused with another program of the same process id."""

import fcntl
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from infra import state

_KILL_SECONDS = 10.0


class DaemonError(RuntimeError):
    """A server could not be started or stopped. The message says why and what to do."""


class Daemon:
    """One server; its process id, log and lock are the files NAME.pid, NAME.log and NAME.alive in `folder`.

    The server inherits a file lock and holds it until it ends, so a stale or reused process id is never taken for it.
    """

    def __init__(self, folder: Path, name: str, title: str) -> None:
        self.title = title  # begins error messages
        folder = folder.absolute()
        self.log = folder / f"{name}.log"
        self._lock = folder / f"{name}.alive"
        self._lock_path = str(self._lock.resolve())
        self._pid = folder / f"{name}.pid"

    def start(self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> None:
        """Starts the server in a session of its own, so that it outlives the terminal."""
        with _open_lock(self._lock) as lock, self.log.open("wb") as log:
            fcntl.flock(lock, fcntl.LOCK_EX)
            server = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[lock.fileno()],
                start_new_session=True,
            )
        state.write(self._pid, str(server.pid).encode())
        server.returncode = 0  # nobody waits for it here; without this Popen warns that it still runs

    @property
    def pid(self) -> int:
        """The server's process id, or that of its last start; 0 where that is not known."""
        return self._noted() or self._group() or 0

    def _noted(self) -> int | None:
        text = state.read(self._pid) or b""
        return int(text) if re.fullmatch(rb"[1-9][0-9]{0,9}", text) else None

    def _group(self) -> int | None:
        """The process group that holds the lock: as it was noted, if that is so, else the oldest; None when none does."""
        holders = []
        for process in psutil.process_iter():
            with suppress(psutil.Error, ProcessLookupError):  # it has ended, or is another user's
                if any(file.path == self._lock_path for file in process.open_files()):
                    holders.append((process.create_time(), os.getpgid(process.pid)))
        groups = [group for _, group in sorted(holders)]
        noted = self._noted()
        return noted if noted in groups else groups[0] if groups else None

    def is_running(self) -> bool:
        """Whether the server, or a process that it started, holds the lock."""
        self._reap()
        try:
            with _open_lock(self._lock, make=False) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def await_healthy(self, fault: Callable[[], str | None], seconds: float) -> None:
        """Polls until `fault` returns None; until then it returns why the server is not healthy.

        Raises:
            DaemonError: the server has ended, or is not healthy after so many seconds.
        """
        deadline = time.monotonic() + seconds
        while why := fault():
            if not self.is_running():
                raise DaemonError(f"{self.title}: stopped at once: {self._last_error()}; see {self.log}")
            if time.monotonic() > deadline:
                raise DaemonError(f"{self.title}: not healthy after {seconds:.0f} s: {why}; see {self.log}")
            time.sleep(0.1)

    def stop(self, grace_seconds: float, descendants: bool = True) -> bool:
        """Ends the server and, unless told otherwise, its descendants: SIGTERM, and SIGKILL after the grace.

        Returns whether it was running.

        Raises:
            DaemonError: it does not end.
        """
        if not self.is_running():
            return False
        if (group := self._group()) is None:
            if self.is_running():
                raise DaemonError(f"{self.title}: runs, and which process it is cannot be seen; stop it by hand")
            return True
        started = _descendants(group) if descendants else []
        self._end_group(group, grace_seconds)
        _end_all(started, grace_seconds)
        return True

    def _end_group(self, group: int, grace_seconds: float) -> None:
        for sign, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _KILL_SECONDS)):
            with suppress(ProcessLookupError):
                os.killpg(group, sign)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if not self.is_running():
                    return
                time.sleep(0.05)
        raise DaemonError(f"{self.title}: process {group} does not end; stop it by hand")

    def _last_error(self) -> str:
        """The last line of the log that is an error, else the last line."""
        lines = [line for line in self.log.read_text(errors="replace", encoding="utf-8").splitlines() if line.strip()] or [
            "nothing in its log"
        ]
        errors = [line for line in lines if line.startswith(("F", "E")) or "rror" in line] or lines
        return errors[-1].split("] ", 1)[-1].strip()

    def _reap(self) -> None:
        """Waits for a dead server that this process started: until then it is a zombie with a process id."""
        with suppress(ChildProcessError):
            os.waitpid(self._noted() or os.getpid(), os.WNOHANG)


def _open_lock(path: Path, make: bool = True) -> IO[bytes]:
    """A lock file, opened without waiting, whatever is in its place. Raises OSError for a folder or a link."""
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_NOFOLLOW | (os.O_CREAT if make else 0), 0o666)
    return open(descriptor, "r+b", buffering=0)  # noqa: PTH123 - a descriptor has no path


def _descendants(pid: int) -> list[psutil.Process]:
    """A process's children and theirs, also those in process groups of their own."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _end_all(processes: list[psutil.Process], grace_seconds: float) -> None:
    """Ends the descendants that outlived the server, such as a flow run whose worker was killed first."""
    for send, seconds in ((psutil.Process.terminate, grace_seconds), (psutil.Process.kill, _KILL_SECONDS)):
        for process in filter(_is_alive, processes):
            with suppress(psutil.NoSuchProcess):
                send(process)
        deadline = time.monotonic() + seconds
        while any(map(_is_alive, processes)) and time.monotonic() < deadline:
            time.sleep(0.05)


def _is_alive(process: psutil.Process) -> bool:
    """Whether it runs and is no zombie."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Holds the lock of a folder, which one process has at a time; makes the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with _open_lock(folder / "lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
