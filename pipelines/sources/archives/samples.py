"""The samples of a WebDataset tar, by its headers: where the image lies, and its class. Images are not read.

A sample is a run of members whose names are equal up to the first dot of their last part: `a/1.jpg`, `a/1.cls`. The class is
text in `cls` (also `class`, `label`), or a value of the object in `json`. Nothing is unpickled.
"""

import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from alexnet.errors import DataError
from alexnet.files import strict
from alexnet.images.inspect import SUFFIXES
from alexnet.shards.tar import Read, iter_headers, next_header
from pipelines.sources.archives.devkit import GZIP
from pipelines.sources.base import MembersConfig
from pipelines.sources.known_names import is_litter

TEXTS = ("cls", "class", "label")  # members whose text is the class
KEYS = ("label", "cls", "class", "class_id", "category", "wnid", "synset")  # of an object in json
_EXTENDED = (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)
_CLASS_BYTES, _JSON_BYTES, _NAME_BYTES = 1 << 10, 1 << 20, 64 << 10
_LONGEST = 100  # characters of a class
_PADDING = 1 << 20  # bytes after the end mark at most


@dataclass(frozen=True)
class Member:
    """A regular file of a tar: its name, and its first byte and size there."""

    name: str
    offset: int
    size: int

    @property
    def key(self) -> str:
        """The name up to the first dot of its last part."""
        return self.name[: len(self.name) - len(self.suffix) - 1] if self.suffix else self.name

    @property
    def suffix(self) -> str:
        """What is behind that dot, in lower case."""
        return self.name.rpartition("/")[2].partition(".")[2].lower()


@dataclass(frozen=True)
class TarSamples:
    """What a tar holds. samples: the member that is the image, and the class, empty where nothing tells it.

    others: members that are neither an image nor a class, by suffix. litter: by name, what systems leave there.
    """

    samples: list[tuple[Member, str]] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    litter: Counter[str] = field(default_factory=Counter)


def read_samples(read: Read, size: int, config: MembersConfig, where: str) -> TarSamples:
    """The samples of a tar of `size` bytes, in order.

    Raises:
        DataError: it is gzipped, damaged or cut, or a sample can be read in two ways.
    """
    if size and read(0, min(size, len(GZIP))) == GZIP:
        raise DataError(f"{where}: is gzipped; no image of it can be read without all before it: gunzip it")
    found = TarSamples()
    for key, run in groupby(_members(read, size, where, found.litter), lambda member: member.key):
        if key.startswith("__") and "/" not in key:  # a note on the whole tar
            continue
        sample: dict[str, Member] = {}
        for member in run:
            if member.suffix in sample:
                raise DataError(f"{where}: {strict.shown(member.name)} stands twice in its sample; pack the tar again")
            sample[member.suffix] = member
        image = _image(sample, config, where)
        label = image and _label(sample, config, read, where)
        if image:
            found.samples.append((image, label[1] if label else ""))
        used = (image, label and label[0])
        others = (suffix.rpartition(".")[2] for suffix, member in sample.items() if member not in used)
        found.others.update(f".{last}" if last else "without a suffix" for last in others)
    return found


def _members(read: Read, size: int, where: str, litter: Counter[str]) -> Iterator[Member]:
    """The regular files of a tar by their whole names; what systems leave there is counted."""
    name, end = "", 0
    for info in iter_headers(read, 0, size, where):
        end = next_header(info)
        if info.type in _EXTENDED:
            name = _long_name(info, read, where) or name
        elif info.type not in (tarfile.XGLTYPE, tarfile.GNUTYPE_LONGLINK):
            own, name = name or info.name, ""
            if left := next((part for part in own.removeprefix("./").split("/") if is_litter(part)), None):
                litter[left] += 1
            elif info.type in (tarfile.REGTYPE, tarfile.AREGTYPE):
                yield Member(own, info.offset_data, info.size)
            elif not info.isdir():
                at = f"{where}: member {strict.shown(own)} at byte {info.offset:,}"
                raise DataError(f"{at} is neither a file nor a folder; pack the tar again, links followed (tar -h)")
    rest = size - end
    if rest > _PADDING or any(read(end, rest)):
        raise DataError(f"{where}: more than zeros after the end mark at byte {end:,}; are these tars joined? pack them again")


def _long_name(info: tarfile.TarInfo, read: Read, where: str) -> str:
    """The name that an extended header gives to the next member; empty where it gives none."""
    at = f"{where}: the extended header at byte {info.offset:,}"
    if info.size > _NAME_BYTES:
        raise DataError(f"{at} has {info.size:,} bytes; pack the tar again with shorter names")
    body = read(info.offset_data, info.size)
    if info.type == tarfile.GNUTYPE_LONGNAME:
        return body.rstrip(b"\0").decode("utf-8", "replace")
    name = ""
    while body:
        length, _, _ = body.partition(b" ")
        if not length.isdigit() or len(length) > 5 or not len(length) + 1 < int(length) <= len(body):
            raise DataError(f"{at} is damaged; fetch the tar again")
        keyword, _, value = body[len(length) + 1 : int(length)].partition(b"=")
        if keyword in (b"size", b"GNU.sparse.major", b"GNU.sparse.map"):
            raise DataError(f"{at} is of a file of more than 8 GB, or with holes; pack the tar again without it")
        name = value.removesuffix(b"\n").decode("utf-8", "replace") if keyword == b"path" else name
        body = body[int(length) :]
    return name


def _image(sample: dict[str, Member], config: MembersConfig, where: str) -> Member | None:
    """The sample's image: the suffix that is configured, or the only one of an image; None if it has none."""
    if config.image:
        return sample.get(config.image.lower())
    images = [suffix for suffix in sample if f".{suffix}" in SUFFIXES]
    images = images or [suffix for suffix in sample if f".{suffix.rpartition('.')[2]}" in SUFFIXES]
    if len(images) > 1:
        names = " and ".join(strict.shown(sample[suffix].name) for suffix in images[:2])
        raise DataError(f"{where}: {names} are images of one sample; set source.members.image to {images[0]} in params.yaml")
    return sample[images[0]] if images else None


def _label(sample: dict[str, Member], config: MembersConfig, read: Read, where: str) -> tuple[Member, str] | None:
    """The member that tells the class, and the class; empty if it cannot be read. None if there is no such member."""
    suffix, _, key = (config.label or "").partition(".")
    suffixes = (suffix.lower(),) if suffix else (*TEXTS, "json")
    member = next((sample[each] for each in suffixes if each in sample), None)
    if member is None:
        return None
    if member.suffix == "json":
        value = _read_json(member, read)
        if isinstance(value, dict):
            value = value.get(key) if key else _known(value, member, where)
    else:
        value = read(member.offset, member.size).decode("utf-8", "replace") if member.size <= _CLASS_BYTES else None
    return member, _class(value)


def _read_json(member: Member, read: Read) -> Any:
    if member.size > _JSON_BYTES:
        return None
    try:
        return strict.loads(read(member.offset, member.size))
    except ValueError:
        return None


def _known(tree: dict[str, Any], member: Member, where: str) -> Any:
    """The value of the only known key; None if there is none."""
    values = {key: tree[key] for key in KEYS if _class(tree.get(key))}
    if len({str(value) for value in values.values()}) > 1:
        first, second = list(values)[:2]
        raise DataError(
            f"{where}: {strict.shown(member.name)} has {first} {strict.shown(values[first])} and {second} "
            f"{strict.shown(values[second])}; set source.members.label to json.{first} or json.{second} in params.yaml"
        )
    return next(iter(values.values()), None)


def _class(value: Any) -> str:
    """A whole number or a line of text as the name of a class; empty for anything else."""
    text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
    return text if text.isprintable() and len(text) <= _LONGEST and not {"/", "\\", "\ufffd"} & {*text} else ""
