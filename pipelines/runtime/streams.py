"""The standard streams of a stage: as text, or with ALEXNET_LOG=json an object a line. A reader that ends stops the stage."""

import errno
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from typing import Any, TextIO, cast

from pipelines.runtime import environment

_UNREAD = (errno.EPIPE, errno.EIO)  # the stream's reader has ended; its terminal is closed
_release: str | None = None


@contextmanager
def written_as(stage: str | None) -> Iterator[None]:
    """In the block, what is printed is text, or with a stage's name JSON. A stream that nobody reads ends the stage."""
    if stage is None:
        with redirect_stdout(cast("TextIO", _Text(sys.stdout))), redirect_stderr(cast("TextIO", _Text(sys.stderr))):
            yield
        return
    out, err, failure = _Json(sys.stdout, stage), _Json(sys.stderr, stage), ""
    with redirect_stdout(cast("TextIO", out)), redirect_stderr(cast("TextIO", err)):
        try:
            yield
        except Exception:  # noqa: BLE001 - a bug, whose traceback Python would print in lines
            failure = traceback.format_exc()
            sys.exit(1)
        finally:
            out.end()
            err.end(failure)


class _Text:
    """A standard stream. Once nobody can read it, the stage is stopped as by SIGTERM, and what it still prints is dropped."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._stopping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._stopping():
            self._stream.flush()

    @contextmanager
    def _stopping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if error.errno not in _UNREAD:
                raise
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            os.kill(os.getpid(), signal.SIGTERM)


class _Json(_Text):
    """The same, with every line as a JSON object: time (UTC), level, run, stage, release, message; null where there is none."""

    def __init__(self, stream: TextIO, stage: str) -> None:
        super().__init__(stream)
        self._stage, self._rest, self._lock = stage, "", threading.Lock()

    def isatty(self) -> bool:
        """No: progress is told by lines."""
        return False

    def write(self, text: str) -> int:
        with self._lock:
            *lines, self._rest = (self._rest + text).split("\n")
            for line in filter(str.strip, lines):
                super().write(self._object("error" if line.startswith(f"{self._stage}: error: ") else "info", line))
        return len(text)

    def end(self, failure: str = "") -> None:
        """Writes the line that has no end yet, and what has ended the stage."""
        self.write("\n")
        if failure:
            super().write(self._object("error", failure))
        self.flush()

    def _object(self, level: str, message: str) -> str:
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        found = {"time": at, "level": level, "run": environment.run_id(), "stage": self._stage, "release": _release}
        return json.dumps(found | {"message": message}) + "\n"


def speak_of(release: str) -> None:
    """Names the release, as NAME@VERSION, that the lines from now on are about."""
    global _release  # noqa: PLW0603 - one process makes one release
    _release = release
