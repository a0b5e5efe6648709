"""A server in the background that is neither started twice nor confused with another program."""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

_KILL_SECONDS = 10.0


class Daemon:
    """One server; its process id, its log and its sign of life are files in `folder`.

    The server inherits a lock and holds it exactly as long as it lives, so that no stale or reused process id deceives us.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self._folder = folder.absolute()
        self.log = self._folder / f"{name}.log"
        self._alive = self._folder / f"{name}.alive"
        self._pid = self._folder / f"{name}.pid"

    def start(self, command: Sequence[str | Path], env: Mapping[str, str], cwd: Path) -> None:
        """Starts the server in a session of its own, so that it outlives the terminal."""
        with self._alive.open("wb") as alive, self.log.open("wb") as log:
            fcntl.flock(alive, fcntl.LOCK_EX)
            server = subprocess.Popen(
                command,
                cwd=cwd,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=[alive.fileno()],
                start_new_session=True,
            )
        self._pid.write_text(str(server.pid))
        server.returncode = 0  # it is not ours to wait for; without this Popen warns that it still runs

    def runs(self) -> bool:
        """Whether the server, or a process that it started, lives."""
        self._reap()
        try:
            with self._alive.open("rb") as alive:
                fcntl.flock(alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except FileNotFoundError:
            return False
        return False

    def stop(self, grace_seconds: float) -> bool:
        """Ends the server and what it started: SIGTERM, and SIGKILL after the grace. Returns whether it ran."""
        if not self.runs():
            return False
        group = int(self._pid.read_text())
        family = _family(group)
        self._end_group(group, grace_seconds)
        _end_all(family, grace_seconds)
        return True

    def _end_group(self, group: int, grace_seconds: float) -> None:
        for sign, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _KILL_SECONDS)):
            with suppress(ProcessLookupError):
                os.killpg(group, sign)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if not self.runs():
                    return
                time.sleep(0.05)
        raise RuntimeError(f"{self.name}: process {group} does not end; stop it by hand")

    def last_words(self) -> str:
        """The last line of its log that speaks of an error, else the last line."""
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()] or ["nothing in its log"]
        fatal = [line for line in lines if line.startswith(("F", "E")) or "rror" in line] or lines
        return fatal[-1].split("] ", 1)[-1].strip()

    def _reap(self) -> None:
        """Where this process started the server, a dead one stays a zombie, and holds nothing, until it is waited for."""
        with suppress(ChildProcessError, FileNotFoundError, ValueError):
            os.waitpid(int(self._pid.read_text()), os.WNOHANG)


def _family(pid: int) -> list[psutil.Process]:
    """What a process has started, and what that has started; some of it may be in process groups of its own."""
    try:
        return list(psutil.Process(pid).children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def _end_all(family: list[psutil.Process], grace_seconds: float) -> None:
    """Ends what outlived its server: a run whose worker was too busy to end it."""
    for end, seconds in ((psutil.Process.terminate, grace_seconds), (psutil.Process.kill, _KILL_SECONDS)):
        for member in filter(_lives, family):
            with suppress(psutil.NoSuchProcess):
                end(member)
        deadline = time.monotonic() + seconds
        while any(map(_lives, family)) and time.monotonic() < deadline:
            time.sleep(0.05)


def _lives(process: psutil.Process) -> bool:
    """Whether it still runs: one that waits for nobody to ask how it ended does not."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one process at a time is within, over all who name the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
