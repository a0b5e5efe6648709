"""Reads a tar, or a range of one, from front to back: nothing is extracted, and no name in it becomes a path.

tarfile reads whole archives only, takes a cut archive for a short one, and follows sizes below zero backward.
"""

import contextlib
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from alexnet.errors import DataError

BLOCK = 512
LARGEST = 128 << 20  # of an image that is read whole; ImageNet's largest has 15 MB
_AHEAD = 4 << 20  # bytes that are read from an archive at a time
_WINDOW = 1 << 20  # bytes searched for a header; ImageNet's images have 110 KB
Read = Callable[[int, int], bytes]  # a file's bytes, from their offset and number


@dataclass(frozen=True)
class Member:
    """A regular file in an archive, or a folder, whose name ends in a slash. offset, size: of its content, in bytes."""

    name: str
    offset: int
    size: int


def _parse_header(block: bytes, at: int, end: int, where: str) -> Member | None:
    """The member whose header begins at byte `at`; None for the archive's end mark.

    Raises:
        DataError: A damaged header, a size below zero, a member that reaches over `end`, or one that is no regular file.
    """
    if not any(block):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise DataError(f"{where}: no tar header at byte {at:,}: {error}; the archive is damaged, fetch it again") from None
    if info.isdir():
        return Member(f"{info.name}/", at + BLOCK, 0)
    member = f"{where}: member {info.name!r} at byte {at:,}"
    if not info.isreg():
        raise DataError(f"{member} is no regular file; ImageNet's archives hold no others")
    if info.size < 0:  # a number of base 256 has a sign, and would lead backward
        raise DataError(f"{member} has a size of {info.size:,}; the archive is damaged")
    if at + BLOCK + info.size > end:
        raise DataError(f"{member} reaches over the end at {end:,}; the archive is cut")
    return Member(info.name, at + BLOCK, info.size)


def iter_members(read: Read, start: int, end: int, where: str, is_last: bool = True) -> Iterator[Member]:
    """Every member in a range of an archive. Only headers are read.

    Args:
        read: Reads the archive.
        start: Where a member begins.
        end: Where a member ends.
        where: The archive's name in errors.
        is_last: Whether the range is the archive's last, which alone must have the end mark.
    """
    at = start
    while at + BLOCK <= end:
        member = _parse_header(read(at, BLOCK), at, end, where)
        if member is None and not is_last:
            raise DataError(f"{where}: an end mark at byte {at:,} before the last member; the archive is damaged")
        if member is None:
            return
        yield member
        at = member.offset + -(-member.size // BLOCK) * BLOCK
    if is_last:
        raise DataError(f"{where}: no end mark at byte {at:,}; the archive is cut, fetch it again")


def split_points(read: Read, start: int, end: int, step: int, is_name: Callable[[str], object]) -> list[int]:
    """Bytes at which members begin, about `step` apart: where an archive can be split so that many workers read it at once.

    What lies between is not read. `is_name` takes the last part of a member's name. Should bytes inside a member look like a
    header, the range before them ends within that member, and `iter_members` raises.
    """
    found = [start]
    pieces = max(1, (end - start) // step)
    for piece in range(1, pieces):
        near = start + (end - start) // pieces * piece
        first = max(near - near % BLOCK, found[-1] + BLOCK)
        window = read(first, max(0, min(_WINDOW, end - first)))
        for at in range(first, first + len(window), BLOCK):
            member = None
            with contextlib.suppress(DataError):  # most blocks are no headers
                member = _parse_header(window[at - first : at - first + BLOCK], at, end, "")
            if member and is_name(member.name.rpartition("/")[2]):
                found.append(at)
                break
    return found


class ReadAhead:
    """Reads a range of a file from front to back, a few MiB at a time: a bucket answers each request slowly."""

    def __init__(self, read: Read, end: int) -> None:
        self._read = read
        self._end = end
        self._start, self._data = 0, b""

    def __call__(self, offset: int, size: int) -> bytes:
        """The bytes of the file from `offset` on."""
        if not self._start <= offset <= offset + size <= self._start + len(self._data):
            self._start, self._data = offset, b""  # the old bytes are freed before others are read
            self._data = self._read(offset, min(max(size, _AHEAD), self._end - offset))
        return self._data[offset - self._start : offset - self._start + size]
