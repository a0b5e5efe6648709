"""The manifest: which shards exist, and what is in them."""

import json
import re
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from alexnet.config import read_json
from alexnet.errors import DataError
from alexnet.files.strict import shown

Split = Literal["train", "val", "test"]
ExifOrientation = Literal["ignored", "applied"]
MAX_SIDE_PX = 4096
_PREFIX = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]*/)+")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_SHA256 = re.compile("[0-9a-f]{64}")
_MAX_BYTES = 1 << 40  # of a shard


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

    def check(self, classes: int) -> None:
        """Raises ValueError unless it is the entry of a shard of that many classes."""
        if not (_NAME.fullmatch(self.name) and _SHA256.fullmatch(self.sha256)):
            raise ValueError(f"{shown(self.name)}: a name is letters, digits and `._-`, a sha256 64 digits 0-9a-f")
        if not (0 < self.bytes <= _MAX_BYTES and 0 < self.samples <= self.bytes):
            raise ValueError(f"{self.name}: has {self.bytes} bytes and {self.samples} samples")
        counts = self.labels.values()
        if not all(0 <= label < classes for label in self.labels) or min(counts, default=0) < 0 or sum(counts) != self.samples:
            raise ValueError(
                f"{self.name}: has images per label of {shown(self.labels)}; "
                f"labels are 0 to {classes - 1}, and the images must be {self.samples}"
            )


@dataclass(frozen=True)
class Manifest:
    """All shards of a data set. Written last, so that a listed shard exists. `prefix` ends in `/` and never changes content.

    splits: train and val, and test where the source has one. exif_orientation: whether pictures are turned as EXIF says; the
    file has it only where they are.
    """

    source: str
    prefix: str
    side_px: int
    synsets: tuple[Synset, ...]
    splits: dict[Split, tuple[Shard, ...]]
    exif_orientation: ExifOrientation = "ignored"

    def to_bytes(self) -> bytes:
        """Sorted JSON: equal manifests are equal bytes."""
        tree = asdict(self)
        if self.exif_orientation == "ignored":
            del tree["exif_orientation"]
        return (json.dumps(tree, indent=1, sort_keys=True) + "\n").encode()

    def write(self, path: Path) -> None:
        """Writes `to_bytes`."""
        path.write_bytes(self.to_bytes())

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """The manifest in a file. Raises DataError when it is missing, not one, or says what no manifest can."""
        advice = "run the shard stage again"
        manifest = read_json(cls, path, advice, {"exif_orientation": "ignored"})
        try:
            manifest.check()
        except ValueError as error:
            raise DataError(f"{path}: {error}; {advice}") from None
        return manifest

    def check(self) -> None:
        """Raises ValueError unless its names stay within the prefix and its numbers are those of shards."""
        if not _PREFIX.fullmatch(self.prefix):
            raise ValueError(f"prefix: must be folders of letters, digits and `._-`, a / after each, got {shown(self.prefix)}")
        if not 1 <= self.side_px <= MAX_SIDE_PX:
            raise ValueError(f"side_px: must be 1 to {MAX_SIDE_PX}, got {self.side_px}")
        check_synsets(self.synsets)
        if not self.splits.get("train"):
            raise ValueError("splits: no shards of train")
        shards = [shard for split in self.splits.values() for shard in split]
        for shard in shards:
            shard.check(len(self.synsets))
        for what, found in (("name", Counter(s.name for s in shards)), ("sha256", Counter(s.sha256 for s in shards))):
            if twice := [value for value, count in found.items() if count > 1]:
                raise ValueError(f"splits: {len(twice)} shards are there twice, such as that of the {what} {twice[0]}")


def check_synsets(synsets: tuple[Synset, ...]) -> None:
    """Raises ValueError unless their labels are 0, 1, 2 and so on, and no two have the same id."""
    if [synset.label for synset in synsets] != list(range(len(synsets))) or not synsets:
        raise ValueError(f"synsets: labels must be 0, 1, 2 and so on, got {shown([synset.label for synset in synsets])}")
    if len({synset.wnid for synset in synsets}) != len(synsets):
        raise ValueError("synsets: two have the same id")
