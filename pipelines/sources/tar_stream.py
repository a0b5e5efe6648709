"""Reads a tar, or a range of one, from front to back: nothing is extracted, and no name in it becomes a path.

tarfile reads whole archives only, takes a cut archive for a short one, and follows sizes below zero backward.
"""

import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from alexnet.errors import DataError

BLOCK = 512
LARGEST = 128 << 20  # of an image that is read whole; ImageNet's largest has 15 MB
_WINDOW = 256 << 10  # bytes searched for a header at a time; ImageNet's images have 110 KB
_WINDOWS = 16
_MAGIC, _MAGIC_AT = b"ustar", 257


@dataclass(frozen=True)
class Member:
    """A regular file in an archive, or a folder, whose name ends in a slash. offset, size: of its content, in bytes."""

    name: str
    offset: int
    size: int

    @property
    def end(self) -> int:
        """Where the next header begins."""
        return self.offset + -(-self.size // BLOCK) * BLOCK


def parse_header(block: bytes, at: int, end: int, where: str) -> Member | None:
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
    if not info.isreg():
        raise DataError(f"{where}: member {info.name!r} at byte {at:,} is no regular file; ImageNet's archives hold no others")
    if info.size < 0:  # a number of base 256 has a sign, and would lead backward
        raise DataError(f"{where}: member {info.name!r} at byte {at:,} has a size of {info.size:,}; the archive is damaged")
    member = Member(info.name, at + BLOCK, info.size)
    if member.offset + member.size > end:
        raise DataError(f"{where}: member {info.name!r} at byte {at:,} reaches over the end at {end:,}; the archive is cut")
    return member


def iter_members(
    pieces: Iterator[bytes], start: int, end: int, where: str, is_last: bool = True
) -> Iterator[tuple[Member, bytes]]:
    """Every member from byte `start` on, with its content.

    Args:
        pieces: The archive's bytes from `start` to `end`.
        start: Where a member begins.
        end: Where a member ends.
        where: The archive's name in errors.
        is_last: Whether the range is the archive's last, which alone must have the end mark.
    """
    stream = _Stream(pieces, where)
    at = start
    while at < end:
        member = parse_header(stream.take(BLOCK), at, end, where)
        if member is None and not is_last:
            raise DataError(
                f"{where}: an end mark at byte {at:,} and members behind it; the archive is damaged, fetch it again"
            )
        if member is None:
            return
        if member.size > LARGEST:
            raise DataError(f"{where}: member {member.name!r} at byte {at:,} has {member.size:,} bytes, more than any image")
        body = stream.take(member.size)
        at = member.end
        stream.take(min(at, end) - member.offset - member.size)
        yield member, body
    if is_last:
        raise DataError(f"{where}: no end mark at byte {at:,}; the archive is cut, fetch it again")


def split_points(
    read: Callable[[int, int], bytes], start: int, end: int, step: int, is_name: Callable[[str], object]
) -> list[int]:
    """Bytes at which members begin, about `step` apart: where an archive can be split so that many workers read it at once.

    What lies between is not read. Should bytes inside a member look like a header, the range before them ends within that
    member, and `iter_members` raises.
    """
    found = [start]
    pieces = max(1, (end - start) // step)
    for piece in range(1, pieces):
        near = start + (end - start) // pieces * piece
        at = _next_header(read, max(near - near % BLOCK, found[-1] + BLOCK), end, is_name)
        if at is not None and at > found[-1]:
            found.append(at)
    return found


def _next_header(read: Callable[[int, int], bytes], at: int, end: int, is_name: Callable[[str], object]) -> int | None:
    """Where the first member with such a name begins, at `at` or within some windows after it."""
    for first in range(at, min(end, at + _WINDOWS * _WINDOW), _WINDOW):
        window = read(first, min(_WINDOW, end - first))
        mark = window.find(_MAGIC)
        while mark >= 0:
            block = window[mark - _MAGIC_AT : mark - _MAGIC_AT + BLOCK] if mark >= _MAGIC_AT else b""
            if (mark - _MAGIC_AT) % BLOCK == 0 and len(block) == BLOCK and _is_header(block, is_name):
                return first + mark - _MAGIC_AT
            mark = window.find(_MAGIC, mark + 1)
    return None


def _is_header(block: bytes, is_name: Callable[[str], object]) -> bool:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError:
        return False
    return info.isreg() and bool(is_name(info.name))


class _Stream:
    """Joins pieces of bytes and takes exact sizes from them."""

    def __init__(self, pieces: Iterator[bytes], where: str) -> None:
        self._pieces = pieces
        self._where = where
        self._buffer = bytearray()

    def take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            piece = next(self._pieces, b"")
            if not piece:
                raise DataError(
                    f"{self._where}: ended {size - len(self._buffer):,} bytes early; the archive is cut, fetch it again"
                )
            self._buffer += piece
        with memoryview(self._buffer) as view:
            taken = bytes(view[:size])
        del self._buffer[:size]
        return taken
