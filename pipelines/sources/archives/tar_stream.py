"""A tar read by many workers at once, each a range of it from front to back: nothing is extracted, no name becomes a path."""

import contextlib
from collections.abc import Callable

from alexnet.errors import DataError
from alexnet.shards.tar import BLOCK, Read, parse_header

LARGEST = 128 << 20  # of an image that is read whole; ImageNet's largest has 15 MB
_AHEAD = 4 << 20  # bytes that are read from an archive at a time
_WINDOW = 1 << 20  # bytes searched for a header; ImageNet's images have 110 KB


def split_points(read: Read, start: int, end: int, step: int, is_name: Callable[[str], object]) -> list[int]:
    """Bytes at which members begin, about `step` apart: where an archive can be split so that many workers read it at once.

    What lies between is not read. `is_name` takes the last part of a member's name. Should bytes inside a member look like a
    header, the range before them ends within that member, and `iter_headers` raises.
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
                member = parse_header(window[at - first : at - first + BLOCK], at, end, "")
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
