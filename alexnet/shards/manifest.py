"""The manifest: which shards exist, and what is in them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alexnet.config import read_json, to_json

Split = Literal["train", "val", "test"]


@dataclass(frozen=True)
class ShardConfig:
    """Size and quality of the images, and the number of shards of each split; a test split has as many as validation."""

    side_px: int
    jpeg_quality: int
    filter: Literal["triangle", "area"]
    train_shards: int
    val_shards: int


@dataclass(frozen=True)
class Synset:
    """A class: its index in the network's output, its id (`n01440764`, or a folder's name) and its name for people."""

    label: int
    wnid: str
    name: str


@dataclass(frozen=True)
class Shard:
    """One tar: its object's name under the manifest's prefix, bytes, digest, samples, and images of every label."""

    name: str
    bytes: int
    sha256: str
    samples: int
    labels: dict[int, int]


@dataclass(frozen=True)
class Manifest:
    """All shards of a data set. Written last, so that a listed shard exists. `prefix` ends in `/` and never changes content.

    splits: train and val, and test where the source has one.
    """

    source: str
    prefix: str
    side_px: int
    synsets: tuple[Synset, ...]
    splits: dict[Split, tuple[Shard, ...]]

    def write(self, path: Path) -> None:
        """Writes sorted JSON: equal manifests are equal bytes."""
        path.write_bytes(to_json(self))

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """The manifest in a file. Raises DataError when it is missing or not one."""
        return read_json(cls, path, "run the shard stage again")
