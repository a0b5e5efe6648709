"""Sources of images. Each is a list of items, in a fixed order, and a way to read one; what follows treats all alike."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, Protocol

from alexnet.shards.manifest import Split

LICENSES = {  # of data that may not be used freely
    "solar-cells": "CC BY-NC-SA 4.0 (Buerhop-Lutz et al., ELPV; non-commercial use only)",
    "imagenet": "non-commercial research and education only (image-net.org/download)",
}


@dataclass(frozen=True)
class ArchiveConfig:
    """A file of the source, and the MD5 that its publisher gives for it."""

    file: str
    md5: str


@dataclass(frozen=True)
class SourceConfig:
    """Which source, and the part of every class that validates where the source has no such split.

    archives: what must have known digests; only `imagenet` has any.
    """

    name: Literal["digits", "solar-cells", "folder", "imagenet", "imagenette"]
    val_fraction: float
    archives: tuple[ArchiveConfig, ...]

    def __post_init__(self) -> None:
        if not 0 < self.val_fraction < 1:
            raise ValueError(f"val_fraction: must be between 0 and 1, got {self.val_fraction}")
        if self.archives and self.name != "imagenet":
            raise ValueError(f"archives: must be [] for {self.name!r}, got {self.archives[0].file!r}; only imagenet has any")


@dataclass(frozen=True)
class Item:
    """One image file. key: its name from here on, without dots and slashes; split: None where the source gives none.

    path: of the file that holds it, relative to the source; offset, bytes: where in that file; suffix: of the image's own
    name, in lower case, with its dot.
    """

    key: str
    split: Split | None
    wnid: str
    path: str
    offset: int
    bytes: int
    suffix: str


@dataclass(frozen=True)
class File:
    """A file of the source: path relative to it, bytes, and a stamp that changes when the file does."""

    path: str
    bytes: int
    stamp: str


@dataclass(frozen=True)
class Part:
    """A piece of a source that one worker reads: these items, or what is found in a range of an archive."""

    items: tuple[Item, ...] = ()
    path: str = ""
    offset: int = 0
    size: int = 0
    split: Split | None = None
    wnid: str = ""
    is_last: bool = True  # of the archive's pieces: the one that ends in its end mark


class Source(Protocol):
    """Images by class. Opening one is quick; it can be sent to another machine that sees the same place."""

    def files(self) -> list[File]:
        """All files, by path. Raises DataError when there are no images, or an empty class, as far as the names tell."""
        ...

    def names(self) -> dict[str, str]:
        """Every class's wnid and its name for people."""
        ...

    def count(self) -> int:
        """How many images there should be; only to show progress."""
        ...

    def parts(self) -> Iterator[Part]:
        """The whole source in pieces."""
        ...

    def walk(self, part: Part) -> Iterator[tuple[Item, bytes]]:
        """Every image of a piece, with its bytes. Raises DataError when something cannot be had."""
        ...

    def read(self, path: str, offset: int, size: int) -> bytes:
        """The image whose `size` bytes stand in a file from `offset` on. Raises DataError when they cannot be had."""
        ...
