"""Small shards for tests: real JPEGs in real tars, and the manifest entries that describe them."""

import hashlib
import io
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simplejpeg

from alexnet.loading.dataset import ShardDataset
from alexnet.shards.cache import ShardCache
from alexnet.shards.manifest import Manifest, Shard, Synset

CLASSES = 3
SIDE_PX = 32


@dataclass(frozen=True)
class SampleShards:
    """Tars by name, and their manifest entries."""

    tars: dict[str, bytes]
    shards: list[Shard]
    side_px: int = SIDE_PX

    def fetch(self, name: str, start: int, size: int) -> Iterator[bytes]:
        """An object's bytes, in small chunks."""
        body = self.tars[name][start : start + size]
        yield from (body[at : at + 4096] for at in range(0, len(body), 4096))

    def dataset(self, folder: Path, limit_bytes: int | None = None) -> ShardDataset:
        """All of them as one split, cached in the folder."""
        return ShardDataset(
            self.shards, ShardCache(folder, self.fetch, limit_bytes=limit_bytes), side_px=self.side_px, classes=CLASSES
        )

    def manifest(self, prefix: str = "shards/test/") -> Manifest:
        """A manifest whose training split they are."""
        synsets = tuple(Synset(label, f"n{label:08}", f"class {label}") for label in range(CLASSES))
        return Manifest("test", prefix, self.side_px, synsets, {"train": tuple(self.shards), "val": ()})


def tar(members: Sequence[tuple[str, bytes]]) -> bytes:
    """A USTAR tar of these members, without times."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        for name, body in members:
            info = tarfile.TarInfo(name)
            info.size = len(body)
            writer.addfile(info, io.BytesIO(body))
    return file.getvalue()


def jpeg(seed: int, side_px: int = SIDE_PX) -> bytes:
    """A JPEG of smooth noise."""
    coarse = np.random.default_rng(seed).integers(0, 256, (side_px // 8, side_px // 8, 3), np.uint8)
    return bytes(simplejpeg.encode_jpeg(np.ascontiguousarray(coarse.repeat(8, 0).repeat(8, 1)), 95, "RGB", "420"))


def describe(name: str, body: bytes, labels: Sequence[int]) -> Shard:
    """The manifest entry of a tar."""
    return Shard(name, len(body), hashlib.sha256(body).hexdigest(), len(labels), dict(Counter(labels)))


def make(counts: Sequence[int], side_px: int = SIDE_PX) -> SampleShards:
    """Shards of these numbers of samples; sample i has key `k<i>`, label i % CLASSES and the image `jpeg(i, side_px)`."""
    tars, shards, first = {}, [], 0
    for number, count in enumerate(counts):
        indices = range(first, first + count)
        name = f"train-{number:06}.tar"
        tars[name] = tar(
            [part for i in indices for part in ((f"k{i:05}.jpg", jpeg(i, side_px)), (f"k{i:05}.cls", b"%d" % (i % CLASSES)))]
        )
        shards.append(describe(name, tars[name], [i % CLASSES for i in indices]))
        first += count
    return SampleShards(tars, shards, side_px)


def keys(dataset: ShardDataset) -> list[str]:
    """The key of every sample. Opens all shards, in order."""
    return [key for number in range(len(dataset.shards)) for key in dataset.open(number).index.keys]


def labels(dataset: ShardDataset) -> list[int]:
    """The label of every sample. Opens all shards, in order."""
    return [label for number in range(len(dataset.shards)) for label in dataset.open(number).index.labels.tolist()]
