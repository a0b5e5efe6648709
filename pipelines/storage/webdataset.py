"""The shards as others read them: stock webdataset, by `s3://` addresses, and an index of each split in `wids`' form.

    import webdataset as wds
    from pipelines.storage.webdataset import urls
    for sample in wds.WebDataset(urls("train"), shardshuffle=False).decode("pil"):
        sample["__key__"], sample["jpg"], sample["cls"]

`urls` also lets webdataset open `s3://`, with the credentials and the resumed reads of `pipelines.storage.bucket`.
"""

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alexnet.errors import DataError
from alexnet.shards.manifest import Manifest, Split
from pipelines.runtime import environment
from pipelines.storage.bucket import bucket_at, data_bucket

MANIFEST = Path("artifacts/manifest.json")


def urls(split: Split, manifest: Path | str = MANIFEST) -> list[str]:
    """The addresses of a split's shards, by a run's manifest.json or a release's shards.json."""
    found = Manifest.read(Path(manifest))
    if split not in found.splits:
        raise DataError(f"{manifest}: has no split {split!r}; it has {', '.join(found.splits)}")
    _register_opener()
    return [f"{data_bucket()}/{found.prefix}{shard.name}" for shard in found.splits[split]]


def indexes(manifest: Manifest) -> dict[str, bytes]:
    """An index of every split, `train.json` and so on, to lie beside the shards it names, in wids' form."""
    return {
        f"{split}.json": json.dumps(
            {
                "__kind__": "wids-shard-index-v1",
                "wids_version": 1,
                "name": f"{manifest.source}-{split}",
                "shardlist": [{"url": each.name, "nsamples": each.samples, "filesize": each.bytes} for each in shards],
            },
            indent=1,
        ).encode()
        for split, shards in manifest.splits.items()
    }


def open_s3(url: str, mode: str = "rb", bufsize: int = 1 << 20) -> io.BufferedReader:
    """webdataset's opener of `s3://BUCKET/KEY`: a body that breaks off is resumed, and one that ends early raises DataError."""
    if mode != "rb":
        raise ValueError(f"{url}: mode must be 'rb', got {mode!r}")
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return io.BufferedReader(_Stream(bucket_at(bucket, environment.store_of(bucket)).stream(key)), max(bufsize, 1 << 20))


class _Stream(io.RawIOBase):
    """Chunks of bytes as a file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._rest = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return 0
            self._rest = memoryview(chunk)
        size = min(len(buffer), len(self._rest))
        buffer[:size], self._rest = self._rest[:size], self._rest[size:]
        return size


def _register_opener() -> None:
    try:
        from webdataset.gopen import gopen_schemes  # imports torch
    except ModuleNotFoundError:  # only the addresses are asked for
        return
    gopen_schemes["s3"] = open_s3
