"""An object into a file: by ranges at the same time, hashed in order behind them, resumed where a killed process left off.

Every chunk is written to its place as it comes, so memory holds a chunk a stream whatever the size; the hash reads behind, from
the system's page cache. Until all is there the file ends in a note, behind the object's bytes: of every range, how many came.
"""

import hashlib
import mmap
import os
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

from alexnet.errors import DataError
from alexnet.shards.verify import Mismatch

Fetch = Callable[[str, int, int], Iterator[bytes]]  # bytes of the object of this name: from which on, and how many

_RANGE = 16 << 20  # bytes of a range at the least: a request costs a round trip and a millisecond of the processor


class PartFile:
    """The file of an object that is being fetched, open for writing and mapped for reading.

    Args:
        path: What is there is kept. A file that is no longer than the object and has no note is its beginning.
        size: The object's, in bytes.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.size = size
        count = max(1, size // _RANGE)
        self.firsts = [size * number // count for number in range(count + 1)]
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            self.came = self._resume()
            self.view = memoryview(mmap.mmap(self._file, size, access=mmap.ACCESS_READ))[:size]
        except BaseException:
            self.close()
            raise

    def end(self, start: int) -> int:
        """Where the bytes end that are there from `start` on, within its range."""
        number = next(number for number, last in enumerate(self.firsts[1:]) if start < last)
        return self.firsts[number] + self.came[number]

    def missing(self, number: int) -> tuple[int, int]:
        """First byte of a range that is not there, and how many are not."""
        start = self.firsts[number] + self.came[number]
        return start, self.firsts[number + 1] - start

    def write(self, number: int, chunk: bytes) -> None:
        """Adds bytes to a range, then to the note: a process that is killed between them fetches the chunk again."""
        _write_all(self._file, chunk, self.firsts[number] + self.came[number])
        self.came[number] += len(chunk)
        _write_all(self._file, struct.pack("<Q", self.came[number]), self.size + 8 * number)

    def cut_note(self) -> None:
        """Leaves the object's bytes alone."""
        os.ftruncate(self._file, self.size)

    def close(self) -> None:
        """Closes the file; the view stays."""
        os.close(self._file)

    def _resume(self) -> list[int]:
        """How many bytes of every range are there; the file is as long as it must be, with a note that says so."""
        sizes = [end - start for start, end in pairwise(self.firsts)]
        note = struct.Struct(f"<{len(sizes)}Q")
        length = os.fstat(self._file).st_size
        came = [0] * len(sizes)
        if length == self.size + note.size:
            came = list(note.unpack(os.pread(self._file, note.size, self.size)))
        elif length <= self.size:
            came = [min(max(length - first, 0), most) for first, most in zip(self.firsts, sizes, strict=False)]
        if any(some > most for some, most in zip(came, sizes, strict=True)):
            came = [0] * len(sizes)  # not a note of ours
        _reserve(self._file, self.size + note.size)
        _write_all(self._file, note.pack(*came), self.size)
        return came


class Fetching:
    """An object on its way into its part file.

    Args:
        name: The object's.
        part: What is missing there is fetched.
        fetch: Gives an object's bytes.
        spare: Streams that this object may use beside one of its own, while no other has them.
        count: Is told the size of every chunk.
    """

    def __init__(
        self, name: str, part: PartFile, fetch: Fetch, spare: threading.Semaphore, count: Callable[[int], None]
    ) -> None:
        self._name = name
        self._part = part
        self._fetch = fetch
        self._spare = spare
        self._count = count
        self._change = threading.Condition()
        self._untaken = deque(number for number in range(len(part.came)) if part.missing(number)[1])
        self._writing = 0
        self._stopped = False
        self._error: Exception | None = None

    def sha256(self, patience_seconds: float, min_bytes_per_second: float) -> str:
        """Fetches what is missing, and hashes all. When it ends, by an error too, nothing is written any more.

        Raises what `fetch` raises, or:
            Mismatch: the object has ended early.
            DataError: it comes too slowly.
            OSError: it cannot be written.
        """
        digest, done = hashlib.sha256(), 0
        pace = _Pace(self._name, self._part, patience_seconds, min_bytes_per_second)
        try:
            if self._untaken:
                self._start(self._untaken.popleft(), lambda: None)
            while done < self._part.size:
                end = self._wait_beyond(done, pace)
                digest.update(self._part.view[done:end])
                done = end
        finally:
            self._stop()
        return digest.hexdigest()

    def _wait_beyond(self, done: int, pace: "_Pace") -> int:
        """Waits for bytes beyond those hashed; where they end."""
        with self._change:
            while True:
                self._take_spare_streams()
                if self._error:
                    raise self._error
                if (end := self._part.end(done)) > done:
                    return end
                self._change.wait(pace.check())

    def _take_spare_streams(self) -> None:
        while self._untaken and self._spare.acquire(blocking=False):
            self._start(self._untaken.popleft(), self._spare.release)

    def _start(self, number: int, release: Callable[[], None]) -> None:
        # A daemon: one that waits for a silent store keeps no process from ending.
        threading.Thread(target=self._stream, args=(number, release), name=f"fetch {self._name}", daemon=True).start()

    def _stop(self) -> None:
        with self._change:
            self._stopped = True
            self._change.wait_for(lambda: not self._writing)

    def _stream(self, number: int | None, release: Callable[[], None]) -> None:
        """Fetches a range, then others that nobody has taken."""
        try:
            while number is not None:
                self._fetch_range(number)
                number = self._take()
        except Exception as error:  # noqa: BLE001 - it is raised in the thread that hashes
            with self._change:
                self._error = self._error or error
                self._change.notify_all()
        finally:
            release()

    def _take(self) -> int | None:
        with self._change:
            return None if self._stopped or not self._untaken else self._untaken.popleft()

    def _fetch_range(self, number: int) -> None:
        start, missing = self._part.missing(number)
        for chunk in self._fetch(self._name, start, missing):
            kept = chunk[:missing]  # a store that sends more than it was asked for must not reach the next range
            if not self._write(number, kept):
                return
            missing -= len(kept)
            if not missing:
                return
        raise Mismatch(f"{self._name}: ends at byte {self._part.missing(number)[0]:,}, the manifest says {self._part.size:,}")

    def _write(self, number: int, chunk: bytes) -> bool:
        """Writes unless all has ended: by then the file may be another's."""
        with self._change:
            if self._stopped:
                return False
            self._writing += 1
        try:
            self._part.write(number, chunk)
        finally:
            with self._change:
                self._writing -= 1
                self._change.notify_all()
        self._count(len(chunk))
        return True


class _Pace:
    """Whether an object comes fast enough: measured over `patience_seconds` at a time."""

    def __init__(self, name: str, part: PartFile, patience_seconds: float, min_bytes_per_second: float) -> None:
        self._name = name
        self._part = part
        self._patience = patience_seconds
        self._min_rate = min_bytes_per_second
        self._since, self._had = time.monotonic(), sum(part.came)

    def check(self) -> float:
        """Raises when it comes too slowly; seconds until that is known again."""
        waited = time.monotonic() - self._since
        if waited >= self._patience:
            have = sum(self._part.came)
            if have - self._had < self._min_rate * waited:
                raise DataError(
                    f"{self._name}: only {have - self._had:,} bytes came in {waited:.0f} s, {have:,} of {self._part.size:,} "
                    "in all; check the link to the store and run again, what came is kept"
                )
            self._since, self._had, waited = time.monotonic(), have, 0.0
        return self._patience - waited


def _reserve(file: int, length: int) -> None:
    """Makes a file this long, with room on the disk: a full one shows before anything is fetched, and writing costs less."""
    os.ftruncate(file, length)
    if hasattr(os, "posix_fallocate"):  # macOS has none
        os.posix_fallocate(file, 0, length)


def _write_all(file: int, chunk: bytes, at: int) -> None:
    view = memoryview(chunk)
    while view:
        written = os.pwrite(file, view, at)
        view, at = view[written:], at + written
