"""Tars of samples: written as plain USTAR, of equal bytes for equal samples, and indexed without extracting anything.

The index gives the byte offset of every image, so that reading one copies nothing. Only what a shard may contain is accepted:
regular files `KEY.jpg` and `KEY.cls`, next to each other. Nothing is unpickled.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Int64, UInt8

from alexnet.errors import DataError

_BLOCK = 512
_NAME = re.compile(rb"([^./\\\x00-\x1f\x7f]{1,96})\.(jpg|cls)")
_REGULAR = (b"0", b"")  # the second is a zero
_PAX = b"x"
_PAX_HARMLESS = {
    b"mtime",
    b"atime",
    b"ctime",
    b"comment",
}  # webdataset's own writer adds mtime to every member


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
            tar.write(bytes(-len(body) % _BLOCK))
    tar.write(bytes(2 * _BLOCK))
    return tar.getvalue()


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    return info.tobuf(tarfile.USTAR_FORMAT)


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
        DataError: a damaged or cut header, a tar without its end mark, a member that a shard may not hold,
            an image without its label, or a key that stands twice.
    """
    view = memoryview(tar)
    starts, sizes = _walk(view, where)
    if not starts:
        return TarIndex([], *(np.zeros(0, np.int64) for _ in range(3)))
    blocks = np.frombuffer(view, np.uint8)[: len(view) // _BLOCK * _BLOCK].reshape(-1, _BLOCK)
    heads = blocks[np.array(starts) // _BLOCK]
    _check_sums(heads, starts, where)
    return _pair(view, list(_members(view, heads, starts, sizes, where)), where)


def _walk(view: memoryview, where: str) -> tuple[list[int], list[int]]:
    """First byte of every header and size of what follows it, up to the end mark: two blocks of zeros."""
    starts, sizes = [], []
    at, end, empty = 0, len(view), bytes(_BLOCK)
    while at + _BLOCK <= end:
        field = bytes(view[at + 124 : at + 136])
        try:
            size = int(field.rstrip(b"\0 "), 8)
        except ValueError:
            if bytes(view[at : at + _BLOCK]) != empty:
                raise DataError(f"{where}: the header at byte {at} has no octal size; the tar is damaged") from None
            break
        starts.append(at)
        sizes.append(size)
        at += _BLOCK + -(-size // _BLOCK) * _BLOCK
    if at + 2 * _BLOCK > end or any(view[at:]):
        raise DataError(f"{where}: no end mark at byte {at} of {end}; the tar is cut or damaged")
    return starts, sizes


def _check_sums(heads: UInt8[np.ndarray, "n 512"], starts: list[int], where: str) -> None:
    """Raises where a header's own checksum is wrong: the sum of its bytes, its own field read as spaces."""
    said = np.zeros(len(heads), np.uint32)
    for column in heads[:, 148:156].T.astype(np.uint32):
        said = np.where((column >= 48) & (column < 56), said * 8 + column - 48, said)
    found = heads.sum(1, dtype=np.uint32) - heads[:, 148:156].sum(1, dtype=np.uint32) + 8 * 32
    if (bad := np.flatnonzero(said != found)).size:
        raise DataError(f"{where}: the header at byte {starts[bad[0]]} fails its checksum; the tar is damaged")


def _members(
    view: memoryview,
    heads: UInt8[np.ndarray, "n 512"],
    starts: list[int],
    sizes: list[int],
    where: str,
) -> Iterator[tuple[str, bytes, int, int]]:
    """Key, kind (jpg or cls), first byte and size of every file, in order."""
    kinds = heads[:, 156:157].copy().view("S1")[:, 0].tolist()
    names = heads[:, :100].copy().view("S100")[:, 0].tolist()  # without the zeros that fill them up
    if heads[:, 345:500].any():
        row = int(np.flatnonzero(heads[:, 345:500].any(1))[0])
        raise DataError(
            f"{where}: the member at byte {starts[row]} has a name of more than 100 bytes; allowed: KEY.jpg, KEY.cls"
        )
    for start, size, name, kind in zip(starts, sizes, names, kinds, strict=True):
        if kind == _PAX:
            _check_pax(bytes(view[start + _BLOCK : start + _BLOCK + size]), start, where)
            continue
        match = _NAME.fullmatch(name)
        if kind not in _REGULAR or match is None:
            raise DataError(
                f"{where}: member {name.decode(errors='replace')!r} at byte {start} is not a sample's; "
                "allowed: regular files KEY.jpg and KEY.cls, KEY without dots and slashes"
            )
        yield match[1].decode(errors="replace"), match[2], start + _BLOCK, size


def _check_pax(records: bytes, start: int, where: str) -> None:
    """Raises on an extended header that would change the next member's name or size."""
    at = 0
    while at < len(records):
        head = re.compile(rb"(\d{1,9}) ([^=\n]+)=").match(records, at)
        if head is None or int(head[1]) < 4 or head[2] not in _PAX_HARMLESS:
            raise DataError(f"{where}: the extended header at byte {start} says more than a time; write plain USTAR tars")
        at += int(head[1])


def _pair(view: memoryview, members: list[tuple[str, bytes, int, int]], where: str) -> TarIndex:
    """Images with their labels; the two members of a sample stand side by side, in either order."""
    keys, labels, offsets, sizes = [], [], [], []
    if len(members) % 2:
        raise DataError(f"{where}: {len(members)} members; a sample has two, KEY.jpg and KEY.cls")
    for first, second in list(pairwise(members))[::2]:
        if first[0] != second[0] or first[1] == second[1]:
            raise DataError(
                f"{where}: {first[0]}.{first[1].decode()} is followed by {second[0]}.{second[1].decode()}; "
                "a sample is KEY.jpg and KEY.cls side by side"
            )
        image, label = (first, second) if first[1] == b"jpg" else (second, first)
        keys.append(image[0])
        labels.append(_label(bytes(view[label[2] : label[2] + min(label[3], 24)]), label, where))
        offsets.append(image[2])
        sizes.append(image[3])
    if len(set(keys)) != len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise DataError(f"{where}: key {twice} stands twice; run the shard stage again")
    return TarIndex(
        keys,
        np.array(labels, np.int64),
        np.array(offsets, np.int64),
        np.array(sizes, np.int64),
    )


def _label(text: bytes, member: tuple[str, bytes, int, int], where: str) -> int:
    stripped = text.strip()
    if not stripped.isdigit() or len(stripped) > 9:
        raise DataError(f"{where}: label {text!r} of {member[0]} at byte {member[2]}; must be a whole number in decimals")
    return int(stripped)
