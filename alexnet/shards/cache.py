"""Shards on the local disk: fetched once, verified before use, kept within a size, shared by any number of processes.

A shard is a file named by its digest. It appears by a rename, after its size, SHA-256, sample count and labels were found to be
those of the manifest. Beside it lies its index, with the identity (size, modification time, inode) of the file that was
verified. A file of another identity, because something wrote to it, is verified again, as every file is after a restart of the
system, because nothing is synced. A killed process leaves a part file, which the next one resumes. Evicting a shard unlinks it;
a process that has it mapped keeps reading.
"""

import contextlib
import hashlib
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alexnet.errors import DataError
from alexnet.files.locks import POLL_SECONDS, Busy, flock
from alexnet.shards.download import Fetch, download
from alexnet.shards.manifest import Shard
from alexnet.shards.tar import TarIndex
from alexnet.shards.verify import FileIdentity, Mismatch, map_file, read_index, verify, write_index

_PATIENCE_SECONDS = 60.0  # without enough progress of a fetch, of another process, or of others that need room


@dataclass(frozen=True)
class CachedShard:
    """A verified shard, mapped into memory, and the index of its samples. It lives as long as anything refers to it."""

    shard: Shard
    index: TarIndex
    bytes: memoryview

    def jpeg(self, row: int) -> memoryview:
        """The encoded image of the shard's sample `row`: a view, nothing is copied."""
        start = int(self.index.offsets[row])
        return self.bytes[start : start + int(self.index.sizes[row])]


class ShardCache:
    """Verified shards by their manifest entries.

    Args:
        folder: Where they are kept. Any number of processes of this machine may share it; it is made when missing.
        fetch: Gives an object's bytes by the shard's name, in several threads at a time. What it raises comes out of `open`.
        streams: Shards that a loader fetches at the same time.
        limit_bytes: The least recently used shards are removed to stay within it; None keeps all.
        away_seconds: For how long `fetch` itself waits, without a byte, for a store that is away.
    """

    def __init__(
        self, folder: Path, fetch: Fetch, *, streams: int = 8, limit_bytes: int | None = None, away_seconds: float = 0.0
    ) -> None:
        self.folder = folder
        self.streams = streams
        self.limit_bytes = limit_bytes
        self.away_seconds = away_seconds
        self.fetched_bytes = 0  # grows with every chunk, so that a waiting loader can see progress
        self._fetch = fetch
        self._counting = threading.Lock()
        self._room = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)

    def open(self, shard: Shard) -> CachedShard:
        """The shard, from the disk or fetched.

        Raises:
            DataError: it names the shard: its bytes are not the manifest's twice in a row, it is larger than the cache,
                or it comes too slowly.
            OSError: the disk is full or sick; it names the shard and the folder.
        """
        try:
            cached = self._from_disk(shard)
            if cached is None:
                with self._locked(shard):
                    cached = self._from_disk(shard) or self._verified_again(shard) or self._fetched(shard)
            self.touch(shard)
        except OSError as error:
            raise OSError(error.errno, error.strerror or str(error), str(self.folder / shard.name)) from error
        return cached

    def touch(self, shard: Shard) -> None:
        """Marks a shard as used now, if it is on the disk: it is the last to be removed. Its index's time is the mark."""
        now = time.time_ns()  # the kernel's own mark is some milliseconds coarse
        with contextlib.suppress(FileNotFoundError):
            os.utime(self._path(shard, "json"), ns=(now, now), follow_symlinks=False)

    def _path(self, shard: Shard, kind: Literal["tar", "json", "lock"] = "tar") -> Path:
        return self.folder / f"{shard.sha256}.{kind}"

    def _part_path(self, shard: Shard) -> Path:
        return self.folder / f"{shard.sha256}.{shard.bytes}.part"  # its name says what room it will need

    def _from_disk(self, shard: Shard) -> CachedShard | None:
        """The shard if it lies there as it was verified: same size, modification time and inode as its index says."""
        mapped = map_file(self._path(shard))
        if mapped is None:
            return None
        view, file = mapped
        index = read_index(self._path(shard, "json"), shard, file)
        return None if index is None else CachedShard(shard, index, view)

    def _verified_again(self, shard: Shard) -> CachedShard | None:
        """The shard's file, hashed, where its index is missing or speaks of another file; None, and no file, if it is wrong."""
        path, mapped = self._path(shard), map_file(self._path(shard))
        if mapped is None:
            return None
        view, file = mapped
        try:
            index = verify(view, hashlib.sha256(view).hexdigest(), shard)
        except DataError:
            _remove(path)  # a copy: the original is in the store
            return None
        write_index(self._path(shard, "json"), index, file)
        if not path.exists():
            _remove(path)  # it was evicted meanwhile: its index must not stay behind
        return CachedShard(shard, index, view)

    def _fetched(self, shard: Shard) -> CachedShard:
        part = self._part_path(shard)
        if part.is_symlink():
            part.unlink()  # in a shared folder it may lead to somebody's file
        self._make_room(shard)
        try:
            cached, file = self._fetch_verified(shard, part)
            write_index(self._path(shard, "json"), cached.index, file)
        except OSError:
            part.unlink(missing_ok=True)  # no room, or a failing disk: leave nothing that needs room
            raise
        self.touch(shard)
        part.replace(self._path(shard))
        return cached

    def _fetch_verified(self, shard: Shard, part: Path) -> tuple[CachedShard, FileIdentity]:
        """Fills the part file, verifies and maps it; wrong bytes are fetched once more."""
        with contextlib.suppress(Mismatch):
            return self._fetch_once(shard, part)
        part.unlink(missing_ok=True)
        try:
            return self._fetch_once(shard, part)
        except Mismatch as error:
            part.unlink(missing_ok=True)
            raise DataError(
                f"{error}, also when fetched again; the object is damaged or was changed: run the shard stage again"
            ) from None

    def _fetch_once(self, shard: Shard, part: Path) -> tuple[CachedShard, FileIdentity]:
        sha256 = download(shard.name, shard.bytes, part, self._fetch, _PATIENCE_SECONDS, self._count)
        mapped = map_file(part)
        assert mapped is not None
        view, file = mapped
        try:
            return CachedShard(shard, verify(view, sha256, shard), view), file
        except DataError:
            part.unlink()
            raise

    def _count(self, fetched: int) -> None:
        with self._counting:
            self.fetched_bytes += fetched

    def _make_room(self, shard: Shard) -> None:
        """Removes the least recently used shards until this one fits within the limit; waits for other fetches to end."""
        if self.limit_bytes is None:
            return
        if shard.bytes > self.limit_bytes:
            raise DataError(
                f"{shard.name}: has {shard.bytes:,} bytes, the cache may hold {self.limit_bytes:,}; raise its limit"
            )
        deadline = time.monotonic() + _PATIENCE_SECONDS + self.away_seconds
        while not self._try_make_room(shard, self.limit_bytes):
            if time.monotonic() > deadline:
                raise DataError(
                    f"{shard.name}: no room within {self.limit_bytes:,} bytes in {self.folder}: "
                    "other shards are being fetched; raise the cache's limit"
                )
            time.sleep(POLL_SECONDS)

    def _try_make_room(self, shard: Shard, limit: int) -> bool:
        mine = self._part_path(shard)
        with self._room, flock(self.folder / "room.lock", _PATIENCE_SECONDS, "the cache's room"):
            if self._excess(shard, limit) > 0:
                self._drop_orphans(mine)
            excess = self._excess(shard, limit)
            for _, size, path in _by_last_use(self.folder):
                if excess <= 0:
                    break
                _remove(path)
                excess -= size
            if excess <= 0:
                mine.touch()  # from here on the others count it
            return excess <= 0

    def _excess(self, shard: Shard, limit: int) -> int:
        """Bytes above the limit once the shard and those being fetched, by any process, are here."""
        fetching = sum(int(part.name.split(".")[1]) for part in self.folder.glob("*.part") if part != self._part_path(shard))
        return fetching + shard.bytes + sum(size for _, size, _ in _by_last_use(self.folder)) - limit

    def _drop_orphans(self, mine: Path) -> None:
        for part in self.folder.glob("*.part"):
            if part != mine:
                of_shard = part.with_name(part.name.split(".")[0])
                with contextlib.suppress(Busy, FileNotFoundError), flock(of_shard.with_suffix(".lock"), 0.0, ""):
                    part.unlink()  # while it is there, the shard is not: an index would have no file
                    of_shard.with_suffix(".json").unlink()

    def _locked(self, shard: Shard) -> contextlib.AbstractContextManager[None]:
        """Locks the shard against other threads and processes; waits as long as the one that has the lock makes progress."""
        part = self._part_path(shard)

        def progress() -> int:
            with contextlib.suppress(FileNotFoundError):
                return part.stat().st_mtime_ns
            return -1

        return flock(self._path(shard, "lock"), _PATIENCE_SECONDS + self.away_seconds, shard.name, progress)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.with_suffix(".json").unlink(missing_ok=True)


def _by_last_use(folder: Path) -> Sequence[tuple[int, int, Path]]:
    """(time of last use, size, path) of the cached shards, the least recently used first."""
    found = []
    for path in folder.glob("*.tar"):
        with contextlib.suppress(FileNotFoundError):
            index = path.with_suffix(".json")
            found.append((index.stat().st_mtime_ns if index.exists() else 0, path.stat().st_size, path))
    return sorted(found)
