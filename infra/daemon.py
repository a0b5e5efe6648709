"""A server in the background that is neither started twice nor confused with another program."""

import fcntl
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

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
        for sign, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _KILL_SECONDS)):
            with suppress(ProcessLookupError):
                os.killpg(group, sign)
            deadline = time.monotonic() + seconds
            while time.monotonic() < deadline:
                if not self.runs():
                    return True
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


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Only one process at a time is within, over all who name the same folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
