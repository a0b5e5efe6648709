"""Where the files of a source lie: a folder of this machine, or the objects below a prefix of a bucket."""

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.errors import DataError
from pipelines.runtime import environment
from pipelines.sources.base import SourceConfig, SourceFile
from pipelines.sources.known_names import is_ignored, is_litter
from pipelines.sources.layout import ignoring

if TYPE_CHECKING:
    from pipelines.storage.bucket import Bucket


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine.

    by_digest: the stamps are digests of the content, which are the same on every machine; otherwise times and inodes.
    ignore: patterns of `source.ignore`. What they name is listed too, and nothing that is wrong with it stops the listing.
    """

    root: Path
    by_digest: bool = False
    ignore: tuple[str, ...] = ()

    def list(self) -> list[SourceFile]:
        """All files by path; with a slash at their end, folders that are empty, or litter and not looked into."""
        if not self.root.is_dir():
            what = "is a file" if self.root.exists() else "no such folder"
            raise DataError(f"{self.root}: {what}; set ALEXNET_SOURCE to a folder or to s3://BUCKET/PREFIX")
        files = sorted(_walk(str(self.root), "", frozenset(), self.ignore), key=lambda file: file.path)
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


def _walk(folder: str, prefix: str, parents: frozenset[tuple[int, int]], ignore: Sequence[str]) -> Iterator[SourceFile]:
    """All files below a folder, through links. os.walk would follow a link to a parent for ever.

    parents: device and inode of the folders that this one lies in. ignore: patterns of what is listed though it cannot be read.
    """
    try:
        own = Path(folder).stat()
        with os.scandir(folder) as scanned:
            entries = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise _unreadable(folder, prefix.rstrip("/"), error) from None
    parents |= {(own.st_dev, own.st_ino)}
    if prefix and all(is_litter(entry.name) for entry in entries):
        yield SourceFile(prefix, 0, "")
    for entry in entries:
        path = f"{prefix}{entry.name}"
        try:
            yield from _files_at(entry, path, parents, ignore)
        except DataError:
            if not is_ignored(path, ignore):
                raise
            yield SourceFile(path, 0, "")


def _files_at(
    entry: "os.DirEntry[str]", path: str, parents: frozenset[tuple[int, int]], ignore: Sequence[str]
) -> Iterator[SourceFile]:
    """An entry of a folder: a file, or the files below it. Raises DataError where it is neither, or cannot be read."""
    try:
        if is_litter(entry.name):
            yield SourceFile(f"{path}/" if entry.is_dir() else path, 0, "")
            return
        status = entry.stat()
    except OSError as error:
        raise _unreadable(entry.path, path, error) from None
    if _escaped(entry.name) != entry.name:
        raise DataError(f"{_escaped(entry.path)}: a name that is not UTF-8; rename it, or set {ignoring(path)}")
    if (status.st_dev, status.st_ino) in parents:
        raise DataError(f"{entry.path}: a link to a folder that it lies in; remove it, or set {ignoring(path)}")
    if stat.S_ISDIR(status.st_mode):
        yield from _walk(entry.path, f"{path}/", parents, ignore)
    elif stat.S_ISREG(status.st_mode):
        # A time can be set back and two files can have one; the inode and the time of its last change are the system's own.
        stamp = f"{status.st_mtime_ns} {status.st_ctime_ns} {status.st_ino}"
        yield SourceFile(path, status.st_size, stamp)
    else:
        raise DataError(f"{entry.path}: neither a file nor a folder; remove it, or set {ignoring(path)}")


def _unreadable(place: str, path: str, error: OSError) -> DataError:
    or_ignore = f", or set {ignoring(path)}" if path else ""
    what = f"a link that leads nowhere, or no right to read it; mend it{or_ignore}"
    return DataError(f"{_escaped(place)}: {error.strerror}; {what}")


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


def folder_of(config: SourceConfig) -> tuple[Folder, str]:
    """The files at ALEXNET_SOURCE, a local path or an s3://BUCKET/PREFIX, and that place. A prefix is taken literally."""
    place = environment.source()
    if not place:
        raise DataError(
            f"ALEXNET_SOURCE: not set; the source `{config.name}` reads the folder or s3://BUCKET/PREFIX that it names"
        )
    if not place.startswith("s3://"):
        return LocalFolder(Path(place).expanduser(), ignore=config.ignore), place
    bucket, _, prefix = place.removeprefix("s3://").partition("/")
    if not bucket:
        raise DataError(f"ALEXNET_SOURCE: {place!r} has no bucket; write s3://BUCKET/PREFIX")
    return BucketFolder(bucket, f"{prefix.removesuffix('/')}/" if prefix else ""), place
