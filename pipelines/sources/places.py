"""Where the files of a source lie: a folder of this machine, or the objects below a prefix of a bucket."""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.errors import DataError
from pipelines.runtime import environment
from pipelines.sources.base import SourceFile
from pipelines.sources.known_names import is_litter

if TYPE_CHECKING:
    from pipelines.storage.bucket import Bucket


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine.

    by_digest: the stamps are digests of the content, which are the same on every machine; otherwise times and inodes.
    """

    root: Path
    by_digest: bool = False

    def list(self) -> list[SourceFile]:
        """All files by path; with a slash at their end, folders that are empty, or litter and not looked into."""
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; set ALEXNET_SOURCE to a folder or to s3://BUCKET/PREFIX")
        files = sorted(_walk(str(self.root), "", frozenset()), key=lambda file: file.path)
        return [replace(file, stamp=self.digest(file)) for file in files if not file.is_folder] if self.by_digest else files

    def digest(self, file: SourceFile) -> str:
        """SHA-256 of a file's content."""
        with (self.root / file.path).open("rb") as opened:
            return hashlib.file_digest(opened, "sha256").hexdigest()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A range of a file. Raises DataError when it has fewer bytes."""
        try:
            with (self.root / path).open("rb") as file:
                file.seek(offset)
                data = file.read(size)
        except OSError as error:
            raise DataError(f"{self.root / path}: {error.strerror}; the source changed or is damaged") from None
        if len(data) != size:
            raise DataError(f"{self.root / path}: has {len(data)} bytes, {size} were listed; the source changed, run again")
        return data


def _walk(folder: str, prefix: str, parents: frozenset[tuple[int, int]]) -> Iterator[SourceFile]:
    """All files below a folder, through links. os.walk would follow a link to a parent for ever.

    parents: device and inode of the folders that this one lies in.
    """
    try:
        own = Path(folder).stat()
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
            litter = [f"{entry.name}/" if entry.is_dir() else entry.name for entry in entries if is_litter(entry.name)]
            found = [(entry.name, entry.stat()) for entry in entries if not is_litter(entry.name)]
    except OSError as error:
        where = _escaped(error.filename or folder)
        raise DataError(f"{where}: {error.strerror}; a link that leads nowhere, or no right to read it; mend it") from None
    parents |= {(own.st_dev, own.st_ino)}
    if not found and prefix:
        yield SourceFile(prefix, 0, "")
    yield from (SourceFile(f"{prefix}{name}", 0, "") for name in litter)
    for name, status in found:
        if _escaped(name) != name:
            raise DataError(f"{_escaped(f'{folder}/{name}')}: a name that is not UTF-8; rename it")
        if (status.st_dev, status.st_ino) in parents:
            raise DataError(f"{folder}/{name}: a link to a folder that it lies in; remove it")
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(f"{folder}/{name}", f"{prefix}{name}/", parents)
        elif stat.S_ISREG(status.st_mode):
            # A time can be set back and two files can have one; the inode and the time of its last change are the system's own.
            stamp = f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
            yield SourceFile(f"{prefix}{name}", status.st_size, stamp)
        else:
            raise DataError(f"{folder}/{name}: neither a file nor a folder; remove it")


def _escaped(path: str) -> str:
    """The path, with escapes for bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


@dataclass(frozen=True)
class BucketFolder:
    """Objects below a prefix of a bucket, read with the credentials of the data bucket."""

    bucket: str
    prefix: str

    def list(self) -> list[SourceFile]:
        """All objects by path, with their entity tags as stamps."""
        found = self._objects.listing(self.prefix)
        files = (SourceFile(key.removeprefix(self.prefix), size, etag) for key, size, etag in found)
        return sorted((file for file in files if file.path), key=lambda file: file.path)

    def digest(self, file: SourceFile) -> str:
        """SHA-256 of an object's content."""
        return hashlib.sha256(self.read(file.path, 0, file.size)).hexdigest()

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A ranged read."""
        return self._objects.get_range(self.prefix + path, offset, size) if size else b""

    @property
    def _objects(self) -> "Bucket":
        from pipelines.storage.bucket import bucket_at  # boto3 takes a second to import

        return bucket_at(self.bucket, environment.store())


Folder = LocalFolder | BucketFolder


def folder_of(source: str) -> tuple[Folder, str]:
    """The files at ALEXNET_SOURCE, a local path or an s3://BUCKET/PREFIX, and that place. A prefix is taken literally."""
    place = environment.source()
    if not place:
        raise DataError(f"ALEXNET_SOURCE: not set; the source `{source}` reads the folder or s3://BUCKET/PREFIX that it names")
    if not place.startswith("s3://"):
        return LocalFolder(Path(place).expanduser()), place
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    if not bucket:
        raise DataError(f"ALEXNET_SOURCE: {place!r} has no bucket; write s3://BUCKET/PREFIX")
    return BucketFolder(bucket, f"{prefix.removesuffix('/')}/" if prefix else ""), place
