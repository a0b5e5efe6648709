"""Tars of samples: written as plain USTAR, of equal bytes for equal samples, and indexed without extracting anything.

The index gives the byte offset of every image, so that reading one copies nothing. Only what a shard may contain is accepted:
regular files `KEY.jpg` and `KEY.cls`, next to each other. Nothing is unpickled.
"""

import io
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int64

from alexnet.errors import DataError

BLOCK = 512
Read = Callable[[int, int], bytes]  # a file's bytes, from their offset and number
_Member = tuple[str, str, int, memoryview]  # key, suffix, first byte, content
_NAME = re.compile(r"([^./\\\x00-\x1f\x7f]{1,96})\.(jpg|cls)")
_PAX_TIMES = re.compile(rb"(\d+ (mtime|atime|ctime|comment)=[^\n]*\n)*")  # webdataset's writer adds mtime to every member


@dataclass(frozen=True)
class Sample:
    """One image of a shard. key: no dots and no slashes, at most 96 bytes; jpeg: the file; label: the class's index."""

    key: str
    label: int
    jpeg: bytes


def tar_of(samples: Iterable[Sample]) -> bytes:
    """The tar of `KEY.jpg` and `KEY.cls` (the label in decimals) of every sample, with no times, owners or extended headers."""
    tar = io.BytesIO()
    for sample in samples:
        for name, body in ((f"{sample.key}.jpg", sample.jpeg), (f"{sample.key}.cls", b"%d" % sample.label)):
            tar.write(_header(name, len(body)))
            tar.write(body)
            tar.write(bytes(-len(body) % BLOCK))
    tar.write(bytes(2 * BLOCK))
    return tar.getvalue()


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.USTAR_FORMAT)


_FIXED = _header("", 0)  # what all headers of `tar_of` share: all but name, size (bytes 124 to 134) and checksum (148 to 155)
_WRITTEN = re.compile(
    rb"([ -~]{1,99})\x00+%b([0-7]{11})%b([0-7]{6})\x00 %b"
    % tuple(re.escape(_FIXED[a:b]) for a, b in ((100, 124), (135, 148), (156, 512)))
)
_FIXED_SUM = sum(_FIXED[100:124]) + sum(_FIXED[135:148]) + sum(b" " * 8) + sum(_FIXED[156:])  # the checksum counts as blanks


@dataclass(frozen=True)
class TarIndex:
    """The samples of one shard, in the order of their images: key, label, and the image's first byte and size in bytes."""

    keys: list[str]
    labels: Int64[np.ndarray, " n"]
    offsets: Int64[np.ndarray, " n"]
    sizes: Int64[np.ndarray, " n"]

    def __len__(self) -> int:
        return len(self.keys)


def index_tar(tar: memoryview | bytes, where: str) -> TarIndex:
    """The index of a tar held in memory or mapped; `where` names it in errors.

    Raises:
        DataError: a damaged header, a tar without its end mark, a member that a shard may not hold, an image without its label,
            or a key that stands twice.
    """
    view, members, end = memoryview(tar), [], 0
    for info in iter_headers(lambda at, size: bytes(view[at : at + size]), 0, len(view), where):
        content = view[info.offset_data : info.offset_data + info.size]
        end = next_header(info)
        if info.type == tarfile.XHDTYPE:
            if not _PAX_TIMES.fullmatch(content):
                raise DataError(
                    f"{where}: the extended header at byte {info.offset} holds more than times; write plain USTAR tars"
                )
            continue
        match = _NAME.fullmatch(info.name)
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or match is None:
            raise DataError(
                f"{where}: member {info.name!r} at byte {info.offset} is not a sample's; "
                "allowed: regular files KEY.jpg and KEY.cls, KEY without dots and slashes"
            )
        members.append((match[1], match[2], info.offset_data, content))
    if len(view) < end + 2 * BLOCK or any(view[end:]):
        raise DataError(f"{where}: no end mark at byte {end} of {len(view)}; the tar is cut or damaged")
    return _pair(members, where)


def iter_headers(read: Read, start: int, end: int, where: str, is_last: bool = True) -> Iterator[tarfile.TarInfo]:
    """The header of every member in a range of a tar, from the start of one to the end of one; nothing else is read.

    tarfile's own reader takes a cut archive for a short one, reads whole archives only, and follows sizes below zero backward.

    Args:
        is_last: Whether the range is the tar's last, which alone must have the end mark.

    Raises:
        DataError: a damaged header, a member that reaches over `end`, or an end mark that is missing or comes too early.
    """
    at = start
    while at + BLOCK <= end:
        info = parse_header(read(at, BLOCK), at, end, where)
        if info is None and not is_last:
            raise DataError(f"{where}: an end mark at byte {at:,} before the last member; the archive is damaged")
        if info is None:
            return
        yield info
        at = next_header(info)
    if is_last:
        raise DataError(f"{where}: no end mark at byte {at:,}; the archive is cut, fetch it again")


def parse_header(block: bytes, at: int, end: int, where: str) -> tarfile.TarInfo | None:
    """The header at byte `at`, with its offset and that of its content; None for the end mark. Raises as `iter_headers`."""
    if not any(block):
        return None
    try:
        info = _written(block) or tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError as error:
        raise DataError(f"{where}: no tar header at byte {at:,}: {error}; the archive is damaged, fetch it again") from None
    info.offset, info.offset_data = at, at + BLOCK
    info.size = 0 if info.isdir() else info.size
    if info.size < 0:  # a number of base 256 has a sign, and would lead backward
        raise DataError(f"{where}: member {info.name!r} at byte {at:,} has a size of {info.size:,}; the archive is damaged")
    if info.offset_data + info.size > end:
        raise DataError(f"{where}: member {info.name!r} at byte {at:,} reaches over the end at {end:,}; the archive is cut")
    return info


def _written(block: bytes) -> tarfile.TarInfo | None:
    """The header, if it is one as `tar_of` writes them, in a fourth of the time of tarfile's reader; None for any other."""
    match = _WRITTEN.fullmatch(block)
    if match is None or int(match[3], 8) != _FIXED_SUM + sum(match[1]) + sum(match[2]):
        return None
    info = tarfile.TarInfo(match[1].decode("ascii"))
    info.size, info.mode = int(match[2], 8), 0o444
    return info


def next_header(info: tarfile.TarInfo) -> int:
    """The byte after a member, whose content is filled up to whole blocks."""
    return info.offset_data + -(-info.size // BLOCK) * BLOCK


def _pair(members: list[_Member], where: str) -> TarIndex:
    """Images with their labels; the two members of a sample stand side by side, in either order."""
    keys, labels, offsets, sizes = [], [], [], []
    if len(members) % 2:
        raise DataError(f"{where}: {len(members)} members; a sample has two, KEY.jpg and KEY.cls")
    for first, second in list(pairwise(members))[::2]:
        if first[0] != second[0] or first[1] == second[1]:
            raise DataError(
                f"{where}: {first[0]}.{first[1]} is followed by {second[0]}.{second[1]}; "
                "a sample is KEY.jpg and KEY.cls side by side"
            )
        image, label = (first, second) if first[1] == "jpg" else (second, first)
        keys.append(image[0])
        labels.append(_label(label, where))
        offsets.append(image[2])
        sizes.append(len(image[3]))
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{where}: key {twice} stands twice; run the shard stage again")
    return TarIndex(keys, *(np.array(column, np.int64) for column in (labels, offsets, sizes)))


def _label(member: _Member, where: str) -> int:
    key, _, at, content = member
    text = bytes(content[:24])
    stripped = text.strip()
    if not stripped.isdigit() or len(stripped) > 9:
        raise DataError(f"{where}: label {text!r} of {key} at byte {at}; must be a whole number in decimals")
    return int(stripped)
