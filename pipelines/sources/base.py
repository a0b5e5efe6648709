"""What a source of images is made of: its configuration, its files, its images, and the partitions that workers read."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from alexnet.shards.manifest import Split

LICENSES = {  # of sources that may not be used for every purpose
    "solar-cells": "CC BY-NC-SA 4.0 (Buerhop-Lutz et al., ELPV; non-commercial use only)",
    "imagenet": "non-commercial research and education only (image-net.org/download)",
}

PLACED = ("folder", "imagenet", "webdataset")  # the sources that are what lies at ALEXNET_SOURCE

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]+")
_KEY_BYTES = 80


@dataclass(frozen=True)
class ArchiveConfig:
    """A file of the source, and the MD5 that its publisher gives for it."""

    file: str
    md5: str


@dataclass(frozen=True)
class MembersConfig:
    """Which members of a WebDataset sample are its image and its class, by suffix; null: the usual ones.

    label: `cls`, or `json.category` for a key of the object in `json`.
    """

    image: str | None
    label: str | None


@dataclass(frozen=True)
class SourceConfig:
    """Which source is used.

    val_fraction: of every class's training images, where the source has no validation split of its own.
    archives: whose MD5 is checked; only `imagenet` has any.
    splits: folders of the splits, where their names do not tell; {train: .} says that the classes lie in the source itself. Of
    `webdataset`, a folder, a prefix of tars, or a pattern.
    ignore: patterns of paths, or of names at any depth, that are left out.
    members: of the samples of `webdataset`.
    """

    name: Literal["digits", "solar-cells", "folder", "imagenet", "imagenette", "webdataset"]
    val_fraction: float
    archives: tuple[ArchiveConfig, ...]
    splits: Mapping[Split, str | None] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()
    members: MembersConfig = MembersConfig(None, None)

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction: must be between 0 and 1, got {self.val_fraction}")
        if self.archives and self.name != "imagenet":
            raise ValueError(f"archives: must be [] for {self.name!r}, got {self.archives[0].file!r}; only imagenet has any")
        if self.given_splits and "train" not in self.given_splits:
            raise ValueError(f"splits: names {', '.join(self.given_splits)} without train, the folder of the training images")

    @property
    def given_splits(self) -> dict[Split, str]:
        """`splits` without those that are null."""
        return {split: path for split, path in self.splits.items() if path}


@dataclass(frozen=True)
class SourceImage:
    """One image of a source.

    key: its name in shards, without dots and slashes. split: None where the source has none. path, offset, size: the file that
    holds it, relative to the source, and its bytes in that file. suffix: of the image's own name, lower case, with the dot.
    """

    key: str
    split: Split | None
    wnid: str
    path: str
    offset: int
    size: int
    suffix: str


def safe_keys(names: Sequence[str], places: Sequence[str]) -> Iterator[str]:
    """Names in safe characters; those that clash, or are too long, end in a digest of the image's place in the source."""
    keys = [_UNSAFE.sub("-", name) for name in names]
    times = Counter(key.lower() for key in keys)
    for key, place in zip(keys, places, strict=True):
        if times[key.lower()] == 1 and len(key) <= _KEY_BYTES:
            yield key
        else:
            yield f"{key[: _KEY_BYTES - 17]}-{hashlib.sha256(place.encode()).hexdigest()[:16]}"


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: its path relative to the source, its bytes, and a stamp that changes when the file does."""

    path: str
    size: int
    stamp: str

    @property
    def is_folder(self) -> bool:
        """Whether it is no file: a folder that is empty or not looked into, or an object that stands for a folder."""
        return self.path.endswith("/")


@dataclass(frozen=True)
class Partition:
    """What one worker reads of a source: either these images, or those in a range of an archive.

    wnid: of all images in that range, if they have one. is_last: the range ends with the archive's end mark.
    """

    images: tuple[SourceImage, ...] = ()
    path: str = ""
    offset: int = 0
    size: int = 0
    split: Split | None = None
    wnid: str = ""
    is_last: bool = True
