"""The fetch stage: downloads or unpacks the source where needed, and lists its files, so that DVC sees when it changed.

It also writes down what the run is for, which decides whether the last stage publishes.

Reads all of params.yaml, so that a mistake anywhere in it is found first. `source.name` is the source; ALEXNET_SOURCE is the
place of `folder`, `imagenet` and `webdataset`: a folder or s3://BUCKET/PREFIX, by the credentials of the data bucket.
ALEXNET_PUBLISH is whether the run publishes, yes or no; unless set, it does, but not in an experiment of DVC's. A file counts
as changed when its size, its times to the nanosecond, its inode or, in a bucket, its entity tag has; --rehash reads every
file, and the next `make run` sees what has changed besides.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from alexnet.config import read_json, to_json
from alexnet.errors import DataError, ParamsError
from alexnet.files.atomic import atomic_write_bytes
from pipelines.config import params
from pipelines.runtime import console, environment
from pipelines.sources.base import LICENSES, PLACED, MembersConfig, SourceConfig
from pipelines.sources.known_names import alike, shown
from pipelines.sources.open import Source, open_source

_SHOWN, _LONGEST = 10, 40  # classes that are named, and characters of a name, at most


@dataclass(frozen=True)
class Summary:
    """source.json, part of the release: what the source was taken for. It names no place and no time.

    left_out: files that are no images by their names, by suffix.
    """

    name: str
    files: int
    bytes: int
    layout: str
    left_out: dict[str, int]


@dataclass(frozen=True)
class Listing:
    """listing.json: by which DVC sees that a file is another one. Copies have other times, so a release has no listing.

    sha256: of every file's path, size and stamp. content: SHA-256 of paths and contents, by the last `--rehash` of these
    files; empty without one.
    """

    sha256: str
    content: str


def summarize(name: str, source: Source) -> Summary:
    """What a source is taken for. Raises DataError when it has no images, or none in some class, or can be read in two ways."""
    files = source.files()
    left_out = dict(sorted(source.left_out().suffixes.items()))
    return Summary(name, len(files), sum(file.size for file in files), source.layout(), left_out)


def list_files(source: Source, before: Listing | None = None, *, rehash: bool = False) -> Listing:
    """Lists a source.

    Args:
        source: The source.
        before: The listing before this one, whose `content` is kept while nothing else has changed.
        rehash: Whether every file is read, for changes that times, inodes and entity tags do not show.
    """
    files = source.files()
    lines = "".join(f"{file.path}\0{file.size}\0{file.stamp}\n" for file in files)
    sha256 = hashlib.sha256(lines.encode()).hexdigest()
    content = before.content if before and before.sha256 == sha256 else ""
    if rehash:
        digests = console.track(
            (f"{file.path}\0{source.folder.digest(file)}\n" for file in files), len(files), "rehash", "files"
        )
        content = hashlib.sha256("".join(digests).encode()).hexdigest()
    return Listing(sha256, content)


def main(source: Path, listing: Path, purpose: Path, *, rehash: bool = False) -> None:
    """Lists the source that params.yaml names, and prints what it was taken for and what is left out."""
    given = params.load()
    config = given.source
    asked = {"publish": environment.publishes(), "experiment": environment.is_experiment()}
    atomic_write_bytes(purpose, (json.dumps(asked) + "\n").encode())
    for note in unused(config):
        console.say(f"fetch: {note}")
    opened = open_source(config)
    found = summarize(config.name, opened)
    terms = f"; its license: {LICENSES[config.name]}" if config.name in LICENSES else ""
    console.say(f"fetch: {config.name}, {found.files:,} files, {found.bytes / 1e6:,.1f} MB{terms}")
    console.say(f"fetch: {found.layout}")
    names = opened.class_names()
    console.say(f"fetch: {_classes(names)}")
    for line in opened.left_out().lines():
        console.say(f"fetch: {line}")
    for twins in alike(names):
        console.say(f"fetch: {' and '.join(map(shown, twins))} differ in spelling alone, and are classes of their own")
    classes = len(names)
    for key, count in (("model.classes", given.model.classes), ("validate.counts.classes", given.validate.counts.classes)):
        if count not in (None, classes):
            raise ParamsError(
                f"{key}: is {count}, and the source has {classes} classes; set it to {classes}, or see the lines above"
            )
    atomic_write_bytes(listing, to_json(list_files(opened, _before(listing), rehash=rehash)))
    atomic_write_bytes(source, to_json(found))


def unused(config: SourceConfig) -> Iterator[str]:
    """What is set and not used by this source."""
    if config.name not in (*PLACED, "imagenette") and environment.source():
        yield f"ALEXNET_SOURCE is set and not used: the source is {config.name}; `alexnet use folder` reads what it names"
    if config.name != "webdataset" and config.members != MembersConfig(None, None):
        yield f"source.members is not used: {config.name} has no WebDataset samples"
    if config.name not in PLACED and (config.given_splits or config.ignore):
        yield f"source.splits and source.ignore are not used: the files of {config.name} are known"


def _classes(names: dict[str, str]) -> str:
    """The classes, as they are named; of many, the first."""
    first = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in list(names.values())[:_SHOWN]]
    return f"classes: {', '.join(first)}{', ...' if len(names) > _SHOWN else ''}"


def _before(path: Path) -> Listing | None:
    """The listing of the last run; None if there is none of today's form."""
    try:
        return read_json(Listing, path, "")
    except DataError:
        return None


if __name__ == "__main__":
    console.run_on_paths(
        "fetch",
        main,
        {"rehash": "read every file, for changes that no time or inode shows"},
        source="JSON to write: what the source was taken for, files, bytes",
        listing="JSON to write: digest of the files' sizes and times",
        purpose="JSON to write: whether the run publishes",
    )
