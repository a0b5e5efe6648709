"""The source `folder`: one folder a class, on disk or in a bucket, with or without given splits.

hat/1.jpg                                  the split is decided by the image's digest
train/hat/1.jpg, val/hat/2.jpg             given; `validation` or `valid` count as val
test/hat/3.jpg                             where it is there: what the report is on; without a val, train is split by digest
"""

import hashlib
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from alexnet.errors import DataError
from alexnet.images.inspect import SUFFIXES, suffix
from alexnet.shards.manifest import Split
from pipelines.runtime import environment
from pipelines.sources.base import Partition, SourceFile, SourceImage
from pipelines.sources.class_names import read_class_names
from pipelines.sources.devkit import Devkit
from pipelines.sources.tar_stream import LARGEST

if TYPE_CHECKING:
    from pipelines.storage.bucket import Bucket

_VAL_FOLDERS = ("val", "validation", "valid")  # the first that exists
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_KEY_BYTES = 80
_IMAGES_PER_PARTITION = 256


@dataclass(frozen=True)
class LocalFolder:
    """A folder of this machine."""

    root: Path

    def list(self) -> list[SourceFile]:
        """All files by path, and empty folders with a slash at their end; hidden ones are left out."""
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; set ALEXNET_SOURCE to a folder or to s3://BUCKET/PREFIX")
        return sorted(_walk(str(self.root), "", frozenset()), key=lambda file: file.path)

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
        with os.scandir(folder) as entries:
            found = [(entry.name, entry.stat()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        where = _escaped(error.filename or folder)
        raise DataError(f"{where}: {error.strerror}; a link that leads nowhere, or no right to read it; mend it") from None
    parents |= {(own.st_dev, own.st_ino)}
    if not found and prefix:
        yield SourceFile(prefix, 0, "")
    for name, status in found:
        if _escaped(name) != name:
            raise DataError(f"{_escaped(f'{folder}/{name}')}: a name that is not UTF-8; rename it")
        if (status.st_dev, status.st_ino) in parents:
            raise DataError(f"{folder}/{name}: a link to a folder that it lies in; remove it")
        if stat.S_ISDIR(status.st_mode):
            yield from _walk(f"{folder}/{name}", f"{prefix}{name}/", parents)
        elif stat.S_ISREG(status.st_mode):
            yield SourceFile(f"{prefix}{name}", status.st_size, str(status.st_mtime_ns))


def _escaped(path: str) -> str:
    """The path, with escapes for bytes that are not UTF-8."""
    return os.fsencode(path).decode(errors="backslashreplace")


@dataclass(frozen=True)
class BucketFolder:
    """Objects below a prefix of a bucket, read with the credentials of the data bucket."""

    bucket: str
    prefix: str

    def list(self) -> list[SourceFile]:
        """All objects by path, with their entity tags as stamps; hidden ones are left out."""
        found = self._objects.listing(self.prefix)
        files = [SourceFile(key.removeprefix(self.prefix), size, etag) for key, size, etag in found]
        return sorted((file for file in files if "/." not in f"/{file.path}"), key=lambda file: file.path)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A ranged read."""
        return self._objects.get_range(self.prefix + path, offset, size) if size else b""

    @property
    def _objects(self) -> "Bucket":
        from pipelines.storage.bucket import bucket_at  # boto3 takes a second to import

        return bucket_at(self.bucket, environment.store())


Folder = LocalFolder | BucketFolder


def folder_of(source: str) -> tuple[Folder, str]:
    """The files at ALEXNET_SOURCE, a local path or an s3://BUCKET/PREFIX, and that place."""
    place = environment.source()
    if not place:
        raise DataError(f"ALEXNET_SOURCE: not set; the source `{source}` reads the folder or s3://BUCKET/PREFIX that it names")
    if not place.startswith("s3://"):
        return LocalFolder(Path(place).expanduser()), place
    parts = urlsplit(place)
    if not parts.netloc:
        raise DataError(f"ALEXNET_SOURCE: {place!r} has no bucket; write s3://BUCKET/PREFIX")
    prefix = parts.path.strip("/")
    return BucketFolder(parts.netloc, f"{prefix}/" if prefix else ""), place


@dataclass(frozen=True)
class FolderSource:
    """One folder a class.

    where: the source's name in errors. words: readable names of classes, where they are known. name_is_key: an image's key is
    its own name, as in ImageNet, whose test images have no classes and are left out; otherwise the class comes before it.
    devkit: an image that contradicts it has no class.
    """

    folder: Folder
    where: str
    words: dict[str, str] = field(default_factory=dict)
    name_is_key: bool = False
    devkit: Devkit | None = None

    def files(self) -> list[SourceFile]:
        """All files, images or not."""
        assert self._found  # raises if there are no images
        return [file for file in self._listing if not file.path.endswith("/")]

    def images(self) -> Iterator[SourceImage]:
        """Every file with an image's suffix that lies in a class's folder, by path."""
        for key, (split, wnid, file) in zip(_keys(self._found, self.name_is_key), self._found, strict=True):
            yield SourceImage(key, split, wnid, file.path, 0, file.size, suffix(file.path))

    def class_names(self) -> dict[str, str]:
        """The devkit's; without one, a class is called what its folder is called, unless `words` or a list there names it."""
        if self.devkit:
            return self.devkit.names
        words = self.words or read_class_names(self.folder, self._listing, self.where)
        return {wnid: words.get(wnid, wnid) for wnid in sorted({wnid for _, wnid, _ in self._found})}

    def num_images(self) -> int:
        """All images."""
        return len(self._found)

    def partitions(self) -> Iterator[Partition]:
        """Some images each."""
        images = self.images()
        while some := tuple(islice(images, _IMAGES_PER_PARTITION)):
            yield Partition(some)

    def read_images(self, partition: Partition) -> Iterator[tuple[SourceImage, bytes]]:
        """Whole files."""
        for image in partition.images:
            if image.size > LARGEST:
                raise DataError(f"{self.where}/{image.path}: has {image.size:,} bytes, more than any image; remove it")
            yield image, self.read(image.path, image.offset, image.size)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A range of a file."""
        return self.folder.read(path, offset, size)

    def __reduce__(self) -> tuple[type["FolderSource"], tuple[object, ...]]:
        return FolderSource, (self.folder, self.where, self.words, self.name_is_key, self.devkit)  # without the long listing

    @cached_property
    def _listing(self) -> list[SourceFile]:
        return self.folder.list()

    @cached_property
    def _found(self) -> list[tuple[Split | None, str, SourceFile]]:
        """Split, wnid and file of every image, by path."""
        found: list[tuple[Split | None, str, SourceFile]] = []
        counts: Counter[tuple[Split | None, str]] = Counter()  # of images, by split and class's folder
        for root, split in _split_folders(self._listing, has_test=not self.name_is_key).items():
            for file in self._listing:
                if not file.path.startswith(root):
                    continue
                *folders, name = file.path.removeprefix(root).split("/")
                is_image = suffix(name) in SUFFIXES
                folder = folders[0] if folders else ""
                if folders:
                    counts[split, folder] += is_image
                elif is_image and root and not self.devkit:
                    raise DataError(
                        f"{self.where}/{file.path}: an image in no class's folder; move it to {root}CLASS/, or remove it"
                    )
                if is_image and (folders or (self.devkit and split)):
                    key = name.removesuffix(".JPEG")
                    found.append((split, self.devkit.wnid(split, folder, key) if self.devkit else folder, file))
        self._check(counts)
        return sorted(found, key=lambda each: each[2].path)

    def _check(self, counts: Counter[tuple[Split | None, str]]) -> None:
        if not counts.total():
            raise DataError(
                f"{self.where}: no images in class folders; it needs CLASS/IMAGE, or train/CLASS/IMAGE and val/CLASS/IMAGE, "
                f"with IMAGE ending in {', '.join(SUFFIXES)}"
            )
        splits, classes = {split for split, _ in counts}, {wnid for _, wnid in counts}
        if self.devkit:
            splits, classes = splits & {"train"}, set(self.devkit.names)  # validation images may lie in one folder
        if empty := sorted(
            f"{split}/{wnid}" if split else wnid for split in splits for wnid in classes if not counts[split, wnid]
        ):
            raise DataError(f"{self.where}: no images in class {', '.join(empty)}; add some, or remove the class's folder")
        if len(classes) < 2:
            raise DataError(f"{self.where}: one class only, {classes.pop()}; it takes two to tell apart")


def _split_folders(files: list[SourceFile], has_test: bool) -> dict[str, Split | None]:
    """The folders that hold the classes' folders (or, with a devkit, the images themselves), and their splits, if any."""
    tops = {file.path.split("/")[0] for file in files if file.path.count("/") > 1}
    loose = {file.path.split("/")[0] for file in files if file.path.count("/") == 1 and suffix(file.path) in SUFFIXES}
    if "train" not in tops:
        return {"": None}
    val = next((f"{name}/" for name in _VAL_FOLDERS if name in tops | loose), None)
    splits: dict[str, Split | None] = {"train/": "train", val: "val"} if val else {"train/": None}
    # Images in `test` itself have no class, for they are to be predicted; in the others they are misplaced.
    return splits | {"test/": "test"} if has_test and "test" in tops else splits


def _keys(found: list[tuple[Split | None, str, SourceFile]], name_is_key: bool) -> Iterator[str]:
    """CLASS_NAME in safe characters; names that clash, or are too long, end in a digest of their path."""
    keys = []
    for _, wnid, file in found:
        stem, prefix = file.path.rpartition("/")[2].rpartition(".")[0], "" if name_is_key else f"{wnid}_"
        keys.append(_UNSAFE.sub("-", stem if stem.startswith(prefix) else prefix + stem))
    times = Counter(key.lower() for key in keys)
    for key, (_, _, file) in zip(keys, found, strict=True):
        if times[key.lower()] == 1 and len(key) <= _KEY_BYTES:
            yield key
        else:
            yield f"{key[: _KEY_BYTES - 17]}-{hashlib.sha256(file.path.encode()).hexdigest()[:16]}"
