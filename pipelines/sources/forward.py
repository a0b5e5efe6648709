"""Reading a tar from front to back, in place: nothing is extracted, and no name in it is ever a path."""

import tarfile
from collections.abc import Iterator
from dataclasses import dataclass

from alexnet.errors import DataError

BLOCK = 512
_LARGEST = 256 << 20  # of a member that is read whole; ImageNet's largest image has 15 MB


@dataclass(frozen=True)
class Member:
    """A regular file in an archive: name, first byte of its content, bytes."""

    name: str
    offset: int
    size: int


def header(block: bytes, at: int, end: int, where: str) -> Member | None:
    """The member whose header stands at byte `at`; None for the mark of the archive's end.

    Raises:
        DataError: a damaged header, a member that reaches over `end`, or one that is no regular file.
    """
    if not any(block):
        return None
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise DataError(f"{where}: no tar header at byte {at:,}: {error}; the archive is damaged, fetch it again") from None
    if not info.isreg():
        raise DataError(f"{where}: member {info.name!r} at byte {at:,} is no regular file; ImageNet's archives hold no others")
    member = Member(info.name, at + BLOCK, info.size)
    if member.offset + member.size > end:
        raise DataError(f"{where}: member {info.name!r} at byte {at:,} reaches over the end at {end:,}; the archive is cut")
    return member


def following(member: Member) -> int:
    """Where the next header stands."""
    return member.offset + -(-member.size // BLOCK) * BLOCK


def walk(pieces: Iterator[bytes], start: int, end: int, where: str) -> Iterator[tuple[Member, bytes]]:
    """Every member from byte `start` on, with its content; `pieces` are the archive's bytes from there to `end`."""
    stream = _Stream(pieces, where)
    at = start
    while at < end:
        member = header(stream.take(BLOCK), at, end, where)
        if member is None:
            return
        if member.size > _LARGEST:
            raise DataError(f"{where}: member {member.name!r} at byte {at:,} has {member.size:,} bytes, more than any image")
        body = stream.take(member.size)
        at = following(member)
        stream.take(min(at, end) - member.offset - member.size)
        yield member, body
    raise DataError(f"{where}: no end mark at byte {at:,}; the archive is cut, fetch it again")


class _Stream:
    def __init__(self, pieces: Iterator[bytes], where: str) -> None:
        self._pieces = pieces
        self._where = where
        self._held = bytearray()

    def take(self, size: int) -> bytes:
        while len(self._held) < size:
            piece = next(self._pieces, b"")
            if not piece:
                raise DataError(
                    f"{self._where}: ended {size - len(self._held):,} bytes early; the archive is cut, fetch it again"
                )
            self._held += piece
        taken = bytes(self._held[:size])
        del self._held[:size]
        return taken
