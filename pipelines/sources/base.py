"""What a source of images is made of: its configuration, its files, its images, and the partitions that workers read."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from alexnet.shards.manifest import Split

LICENSES = {  # of sources that may not be used for every purpose
    "solar-cells": "CC BY-NC-SA 4.0 (Buerhop-Lutz et al., ELPV; non-commercial use only)",
    "imagenet": "non-commercial research and education only (image-net.org/download)",
}

PLACED = ("folder", "imagenet")  # the sources that are what lies at ALEXNET_SOURCE


@dataclass(frozen=True)
class ArchiveConfig:
    """A file of the source, and the MD5 that its publisher gives for it."""

    file: str
    md5: str


@dataclass(frozen=True)
class SourceConfig:
    """Which source is used.

    val_fraction: of every class's training images, where the source has no validation split of its own.
    archives: whose MD5 is checked; only `imagenet` has any.
    splits: folders of the splits, where their names do not tell; {train: .} says that the classes lie in the source itself.
    ignore: patterns of paths, or of names at any depth, that are left out.
    """

    name: Literal["digits", "solar-cells", "folder", "imagenet", "imagenette"]
    val_fraction: float
    archives: tuple[ArchiveConfig, ...]
    splits: Mapping[Split, str | None] = field(default_factory=dict)
    ignore: tuple[str, ...] = ()

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
