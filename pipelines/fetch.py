"""The fetch stage: downloads or unpacks the source where needed, and lists its files, so that DVC sees when it changed.

It also writes down what the run is for, which decides whether the last stage publishes.

Reads all of params.yaml, so that a mistake anywhere in it is found first. `source.name` is the source; ALEXNET_SOURCE is the
place of `folder` and `imagenet`: a folder or s3://BUCKET/PREFIX, by the credentials of the data bucket. ALEXNET_PUBLISH is
whether the run publishes, yes or no; unless set, it does, but not in an experiment of DVC's.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from alexnet.config import to_json
from alexnet.files.atomic import atomic_write_bytes
from pipelines.config import params
from pipelines.runtime import console, environment
from pipelines.sources.base import LICENSES
from pipelines.sources.open import Source, open_source


@dataclass(frozen=True)
class Listing:
    """A digest of the source's files. It names no place, so that the same files elsewhere are the same source."""

    name: str
    files: int
    bytes: int
    sha256: str  # of every file's path, size and stamp


def listing(name: str, source: Source) -> Listing:
    """Lists a source. Raises DataError when it has no images, or none in some class."""
    files = source.files()
    lines = "".join(f"{file.path}\0{file.size}\0{file.stamp}\n" for file in files)
    return Listing(name, len(files), sum(file.size for file in files), hashlib.sha256(lines.encode()).hexdigest())


def main(source: Path, purpose: Path) -> None:
    """Lists the source that params.yaml names."""
    config = params.load().source
    atomic_write_bytes(purpose, (json.dumps({"publish": environment.publishes()}) + "\n").encode())
    found = listing(config.name, open_source(config))
    atomic_write_bytes(source, to_json(found))
    terms = f"; its license: {LICENSES[config.name]}" if config.name in LICENSES else ""
    console.say(f"fetch: {config.name}, {found.files:,} files, {found.bytes / 1e6:,.1f} MB{terms}")


if __name__ == "__main__":
    console.run_on_paths(
        "fetch",
        main,
        source="JSON to write: files, bytes and digest of the source's listing",
        purpose="JSON to write: whether the run publishes",
    )
