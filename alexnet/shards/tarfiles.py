"""Writing a shard: a plain USTAR tar that any tool reads, of equal bytes for equal samples."""

import io
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass

_BLOCK = 512


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
