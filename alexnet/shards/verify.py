"""Whether a shard is the one of the manifest: size, digest, sample count and labels. The result is stored beside the shard."""

import errno
import json
import mmap
import os
import stat
import time
import uuid
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from alexnet.errors import DataError
from alexnet.files.sealed import read_sealed, seal
from alexnet.files.strict import loads
from alexnet.shards.manifest import Shard
from alexnet.shards.tar import TarIndex, index_tar

_VERIFIED_SECONDS = 7 * 86400.0  # for which a file's digest is believed; then it is hashed again
FileIdentity = tuple[int, int, int, str]  # size in bytes, modification time in ns, inode, boot of the system


class Mismatch(DataError):
    """Bytes that are not what the manifest says."""


def verify(tar: memoryview, sha256: str, shard: Shard) -> TarIndex:
    """The index of a shard whose bytes, digest, sample count and labels are the manifest's.

    Raises:
        DataError: it names the shard and what differs.
    """
    if len(tar) != shard.bytes:
        raise Mismatch(f"{shard.name}: has {len(tar):,} bytes, the manifest says {shard.bytes:,}")
    if sha256 != shard.sha256:
        raise Mismatch(f"{shard.name}: sha256 is {sha256}, the manifest says {shard.sha256}")
    index = index_tar(tar, shard.name)
    if len(index) != shard.samples:
        raise DataError(
            f"{shard.name}: holds {len(index)} samples, the manifest says {shard.samples}; run the shard stage again"
        )
    if (found := dict(Counter(index.labels.tolist()))) != {label: count for label, count in shard.labels.items() if count}:
        raise DataError(
            f"{shard.name}: images per label are {found}, the manifest says {shard.labels}; run the shard stage again"
        )
    return index


@cache
def _boot_id() -> str:
    """Part of a file's identity, because shards are not synced: after a power cut, a file of the same name may be torn."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    except OSError:
        return uuid.uuid4().hex  # unknown here: every process verifies for itself


def map_file(path: Path) -> tuple[memoryview, FileIdentity] | None:
    """A file's bytes, mapped, and its identity; None when there is none, it is empty, or a link, a pipe or a folder."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENXIO):
            return None
        raise
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size == 0:
            return None
        mapped = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
    finally:
        os.close(descriptor)
    return memoryview(mapped), (status.st_size, status.st_mtime_ns, status.st_ino, _boot_id())


def write_index(path: Path, index: TarIndex, file: FileIdentity) -> None:
    """Stores that this file was verified, and its index. Not synced: after a power cut the file is verified again."""
    tree = {
        "file": file,
        "verified": time.time(),
        "keys": index.keys,
        "labels": index.labels.tolist(),
        "offsets": index.offsets.tolist(),
        "sizes": index.sizes.tolist(),
    }
    temporary = path.with_name(f"{path.name}.tmp")  # its writer holds the shard's lock
    temporary.unlink(missing_ok=True)
    with temporary.open("xb") as new:  # never through a link, which may lead to somebody's file
        new.write(seal(json.dumps(tree).encode()))
    temporary.replace(path)


def read_index(path: Path, shard: Shard, file: FileIdentity) -> TarIndex | None:
    """The stored index of a file verified within a week; None when it is missing, damaged or of another file."""
    try:
        tree = loads(read_sealed(path) or b"null")
        fresh = 0 <= time.time() - tree["verified"] < _VERIFIED_SECONDS
        if tuple(tree["file"]) != file or file[0] != shard.bytes or not fresh:
            return None
        labels, offsets, sizes = (np.array(tree[name], np.int64) for name in ("labels", "offsets", "sizes"))
        keys = [str(key) for key in tree["keys"]]
    except (ValueError, TypeError, KeyError, OverflowError):
        return None
    fits = labels.shape == offsets.shape == sizes.shape == (len(keys),) and len(keys) == shard.samples
    if not fits or (keys and (offsets.min() < 0 or sizes.min() < 0 or (offsets + sizes).max() > shard.bytes)):
        return None
    return TarIndex(keys, labels, offsets, sizes)
