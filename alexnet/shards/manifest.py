"""The manifest: which shards exist, and what is in them."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from alexnet.errors import DataError

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

    @classmethod
    def from_tree(cls, tree: dict[str, Any]) -> "Shard":
        """From JSON, whose keys are text. Raises KeyError, TypeError, ValueError or AttributeError."""
        return cls(**{**tree, "labels": {int(label): count for label, count in tree["labels"].items()}})


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
        path.write_text(json.dumps(asdict(self), indent=1, sort_keys=True) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Manifest":
        """The manifest in a file. Raises DataError when it is not one."""
        try:
            tree = json.loads(path.read_text())
            return cls(
                source=tree["source"],
                prefix=tree["prefix"],
                side_px=tree["side_px"],
                synsets=tuple(Synset(**synset) for synset in tree["synsets"]),
                splits={split: tuple(map(Shard.from_tree, shards)) for split, shards in tree["splits"].items()},
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(f"{path}: not a manifest: {error!r}; run the shard stage again") from None
