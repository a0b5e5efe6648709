"""The source `folder`: one folder a class, on disk or in a bucket, with or without given splits.

hat/1.jpg                                  the split is keyed by the image
train/hat/1.jpg, val/hat/2.jpg             given; `validation` or `valid` count as val, and `test` does where there is no val
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
from typing import TYPE_CHECKING, Protocol
from urllib.parse import urlsplit

from alexnet.errors import DataError
from alexnet.images.inspect import SUFFIXES, suffix
from alexnet.shards.manifest import Split
from pipelines.runtime import environment
from pipelines.sources.base import Partition, SourceFile, SourceImage
from pipelines.sources.tar_stream import LARGEST

if TYPE_CHECKING:
    from pipelines.storage.bucket import Bucket

_VAL_NAMES = ("val", "validation", "valid", "test")  # the first that exists
_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_KEY_BYTES = 80
_PIECE = 1 << 20
_IMAGES = 256  # of a part

Found = tuple[Split | None, str, SourceFile]  # an image's split, class and file


class Tree(Protocol):
    """Files below one place."""

    def list(self) -> list[SourceFile]:
        """All of them, by path."""
        ...

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A part of one."""
        ...

    def stream(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        """A part of one, in order and in pieces."""
        ...

    def __hash__(self) -> int:
        """What was read in a tree is remembered by it."""
        ...


@dataclass(frozen=True)
class LocalTree:
    """Files below a folder of this machine."""

    root: Path

    def list(self) -> list[SourceFile]:
        """All files by path, and empty folders with a slash at their end; hidden ones are left out."""
        if not self.root.is_dir():
            raise DataError(f"{self.root}: no such folder; set ALEXNET_SOURCE to a folder or to s3://BUCKET/PREFIX")
        return sorted(_walk(str(self.root), "", frozenset()), key=lambda file: file.path)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Reads only the bytes that are asked for."""
        try:
            with (self.root / path).open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise DataError(f"{self.root / path}: {error.strerror}; the source changed or is damaged") from None

    def stream(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        """Pieces of 1 MiB."""
        for start in range(offset, offset + size, _PIECE):
            yield self.read(path, start, min(_PIECE, offset + size - start))


def _walk(folder: str, below: str, above: frozenset[tuple[int, int]]) -> Iterator[SourceFile]:
    """above: the folders that this one lies in, by device and number: a link that leads back to one has no end."""
    try:
        own = Path(folder).stat()
        with os.scandir(folder) as entries:
            seen = [(entry.name, entry.stat()) for entry in entries if not entry.name.startswith(".")]
    except OSError as error:
        where = os.fsencode(error.filename or folder).decode(errors="backslashreplace")
        raise DataError(f"{where}: {error.strerror}; a link that leads nowhere, or no right to read it; mend it") from None
    above |= {(own.st_dev, own.st_ino)}
    if not seen and below:
        yield SourceFile(below, 0, "")
    for name, found in seen:
        if not _is_text(name):
            where = os.fsencode(f"{folder}/{name}").decode(errors="backslashreplace")
            raise DataError(f"{where}: a name that is not UTF-8; rename it")
        if (found.st_dev, found.st_ino) in above:
            raise DataError(f"{folder}/{name}: a link to a folder that it lies in; remove it")
        if stat.S_ISDIR(found.st_mode):
            yield from _walk(f"{folder}/{name}", f"{below}{name}/", above)
        elif stat.S_ISREG(found.st_mode):
            yield SourceFile(f"{below}{name}", found.st_size, str(found.st_mtime_ns))


def _is_text(name: str) -> bool:
    try:
        return bool(name.encode())
    except UnicodeEncodeError:
        return False


@dataclass(frozen=True)
class BucketTree:
    """Objects below a prefix of a bucket, by the credentials of the data bucket."""

    bucket: str
    prefix: str

    def list(self) -> list[SourceFile]:
        """All objects by path, with their entity tags as stamps."""
        found = self._objects.listing(self.prefix)
        files = [SourceFile(key.removeprefix(self.prefix), size, etag) for key, size, etag in found]
        return sorted((file for file in files if "/." not in f"/{file.path}"), key=lambda file: file.path)

    def read(self, path: str, offset: int, size: int) -> bytes:
        """A ranged read."""
        return self._objects.get_range(self.prefix + path, offset, size) if size else b""

    def stream(self, path: str, offset: int, size: int) -> Iterator[bytes]:
        """One request, taken up again where it breaks off."""
        return self._objects.stream(self.prefix + path, offset, size)

    @cached_property
    def _objects(self) -> "Bucket":
        from pipelines.storage.bucket import bucket_at  # boto3 takes a second to import

        return bucket_at(self.bucket, environment.store())

    def __reduce__(self) -> tuple[type["BucketTree"], tuple[str, str]]:
        return BucketTree, (self.bucket, self.prefix)  # sent without its connections


def tree_at(place: str) -> Tree:
    """The files at a local path or an s3://BUCKET/PREFIX."""
    if not place.startswith("s3://"):
        return LocalTree(Path(place).expanduser())
    parts = urlsplit(place)
    if not parts.netloc:
        raise DataError(f"ALEXNET_SOURCE: {place!r} has no bucket; write s3://BUCKET/PREFIX")
    prefix = parts.path.strip("/")
    return BucketTree(parts.netloc, f"{prefix}/" if prefix else "")


@dataclass(frozen=True)
class Classes:
    """What a list says of ImageNet's images. names: every class's name for people, by wnid; val: wnids by image's name."""

    names: dict[str, str]
    val: dict[str, str]

    def wnid(self, split: Split | None, folder: str, name: str) -> str:
        """The class of an image in a folder, which may be none; empty where folder, name and list do not agree."""
        if split == "val":
            wnid = self.val.get(name, "")
            return wnid if folder in ("", wnid) else ""
        return folder if folder in self.names and name.startswith(f"{folder}_") else ""


@dataclass(frozen=True)
class FolderSource:
    """One folder a class. where: how errors name the source; words: names of classes for people, where they are known.

    named: an image's own name is its key, as in ImageNet; otherwise the class comes before it. known: what the source's own
    list says; an image that lies elsewhere has no label, and says so.
    """

    tree: Tree
    where: str
    words: dict[str, str] = field(default_factory=dict)
    named: bool = False
    known: Classes | None = None

    def files(self) -> list[SourceFile]:
        """All files, images or not."""
        files = [file for file in self._listing if not file.path.endswith("/")]
        assert self._found  # raises if there are no images
        return files

    def images(self) -> Iterator[SourceImage]:
        """Every file with an image's suffix that lies in a class's folder, by path."""
        found = self._found
        for key, (split, wnid, file) in zip(_keys(found, self.named), found, strict=True):
            yield SourceImage(key, split, wnid, file.path, 0, file.size, suffix(file.path))

    def class_names(self) -> dict[str, str]:
        """The list's; without one, folders are called what they are called, unless there are words for them."""
        if self.known:
            return self.known.names
        return {wnid: self.words.get(wnid, wnid) for wnid in sorted({wnid for _, wnid, _ in self._found})}

    def num_images(self) -> int:
        """Images."""
        return len(self._found)

    def partitions(self) -> Iterator[Partition]:
        """Some images at a time."""
        images = self.images()
        while some := tuple(islice(images, _IMAGES)):
            yield Partition(some)

    def read_images(self, partition: Partition) -> Iterator[tuple[SourceImage, bytes]]:
        """Whole files."""
        for image in partition.images:
            if image.size > LARGEST:
                raise DataError(f"{self.where}/{image.path}: has {image.size:,} bytes, more than any image; remove it")
            data = self.read(image.path, image.offset, image.size)
            if len(data) != image.size:
                raise DataError(f"{image.path}: has {len(data)} bytes, {image.size} were listed; the source changed, run again")
            yield image, data

    def read(self, path: str, offset: int, size: int) -> bytes:
        """Part of a file."""
        return self.tree.read(path, offset, size)

    def __reduce__(self) -> tuple[type["FolderSource"], tuple[object, ...]]:
        return FolderSource, (self.tree, self.where, self.words, self.named, self.known)  # sent without its list

    @cached_property
    def _listing(self) -> list[SourceFile]:
        return self.tree.list()

    @cached_property
    def _found(self) -> list[Found]:
        """Every image with its split and class, by path."""
        found: list[Found] = []
        folders: Counter[tuple[Split | None, str]] = Counter()
        for root, split in _roots(self._listing, flat=self.known is not None).items():
            for file in self._listing:
                if not file.path.startswith(root):
                    continue
                folder, slash, rest = file.path.removeprefix(root).partition("/")
                is_image = suffix(file.path) in SUFFIXES
                if slash:
                    folders[split, folder] += is_image
                elif not is_image or not self._may_be_flat(file, root, split):
                    continue
                if is_image:
                    folder, name = (folder, rest.rpartition("/")[2]) if slash else ("", folder)
                    found.append((split, self.known.wnid(split, folder, name) if self.known else folder, file))
        self._check(folders)
        return sorted(found, key=lambda each: each[2].path)

    def _may_be_flat(self, file: SourceFile, root: str, split: Split | None) -> bool:
        """Whether an image beside the classes' folders has a row."""
        if self.known or not root:
            return self.known is not None and split is not None
        raise DataError(f"{self.where}/{file.path}: an image in no class's folder; move it to {root}CLASS/, or remove it")

    def _check(self, images: Counter[tuple[Split | None, str]]) -> None:
        if not images.total():
            raise DataError(
                f"{self.where}: no images in class folders; it needs CLASS/IMAGE, or train/CLASS/IMAGE and val/CLASS/IMAGE, "
                f"with IMAGE ending in {', '.join(SUFFIXES)}"
            )
        splits, classes = {split for split, _ in images}, {wnid for _, wnid in images}
        if self.known:
            splits, classes = splits & {"train"}, set(self.known.names)  # validation images may lie in one folder
        if empty := sorted(
            f"{split}/{wnid}" if split else wnid for split in splits for wnid in classes if not images[split, wnid]
        ):
            raise DataError(f"{self.where}: no images in class {', '.join(empty)}; add some, or remove the class's folder")
        if len(classes) < 2:
            raise DataError(f"{self.where}: one class only, {classes.pop()}; it takes two to tell apart")


def _roots(files: list[SourceFile], flat: bool) -> dict[str, Split | None]:
    """The folders that hold the classes' folders (or, flat, the images themselves), and their splits."""
    tops = {file.path.split("/")[0] for file in files if file.path.count("/") > 1}
    loose = {file.path.split("/")[0] for file in files if file.path.count("/") == 1 and suffix(file.path) in SUFFIXES}
    if "train" not in tops:
        return {"": None}
    # Images that lie in `test` itself are to be predicted and have no class; in the others, they lost theirs.
    val = next((name for name in _VAL_NAMES if name in tops or (name in loose and (flat or name != "test"))), None)
    return {"train/": "train", f"{val}/": "val"} if val else {"train/": None}


def _keys(found: list[Found], named: bool) -> list[str]:
    """CLASS_NAME in safe characters; names that clash, or are too long, end in a digest of their path."""
    plain = [_plain_key("" if named else f"{wnid}_", file.path) for _, wnid, file in found]
    times = Counter(key.lower() for key in plain)
    return [
        key if times[key.lower()] == 1 and len(key) <= _KEY_BYTES else f"{key[: _KEY_BYTES - 17]}-{_digest(file.path)}"
        for key, (_, _, file) in zip(plain, found, strict=True)
    ]


def _plain_key(before: str, path: str) -> str:
    stem = path.rpartition("/")[2].rpartition(".")[0]
    return _UNSAFE.sub("-", stem if stem.startswith(before) else before + stem)


def _digest(path: str) -> str:
    return hashlib.sha256(path.encode()).hexdigest()[:16]


def open_folder() -> FolderSource:
    """The folder or prefix that ALEXNET_SOURCE names."""
    place = environment.source()
    if not place:
        raise DataError("ALEXNET_SOURCE: not set; the source `folder` reads the folder or s3://BUCKET/PREFIX that it names")
    return FolderSource(tree_at(place), place)
