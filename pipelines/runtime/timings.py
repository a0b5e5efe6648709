"""What a stage took: .local/timings/STAGE.json, a metric of DVC, of which `dvc metrics show .local/timings` has a row a stage.

It is no output of the stage: a figure that differs with every run would change dvc.lock, and the release that holds it.
"""

import os
import resource
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from alexnet.config import read_json, to_json
from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from pipelines.runtime import environment

FOLDER = environment.LOCAL / "timings"
_RSS_BYTES = 1 if sys.platform == "darwin" else 1024  # the unit of ru_maxrss
_lock = threading.Lock()
_store: "Counter[str]" = Counter()
_loops: list[tuple[float, int]] = []  # seconds and images of every loop over images


@dataclass(frozen=True)
class Timing:
    """What the last run of a stage that ended well took; of a training that went on from a checkpoint, from there.

    cpu_seconds, read_bytes, written_bytes: of the process and of those that it has waited for. Bytes are those of calls of read
    and write, also where the page cache had them; null where the system does not count them. peak_memory_bytes: of the largest
    of these processes. gpu_memory_bytes: the most that tensors took. received_bytes, sent_bytes: from and to the object store.
    images_per_second: of the loop over images that took longest, of training with its validation.
    """

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int
    gpu_memory_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None
    received_bytes: int
    sent_bytes: int
    images: int | None
    images_per_second: float | None


def count_store(direction: Literal["received", "sent"], size: int) -> None:
    """Counts bytes from or to the object store."""
    with _lock:
        _store[direction] += size


def count_images(images: int, seconds: float) -> None:
    """Counts a loop over images, when it has ended."""
    if images and seconds:
        _loops.append((seconds, images))


@contextmanager
def measured(stage: str) -> Iterator[None]:
    """Writes what the block took, if it ends well. Of ranks the first writes, then the process that has started them."""
    path, began = FOLDER / f"{stage}.json", time.time()
    _loops.clear()
    _store.clear()
    start, cpu, (read, written) = time.monotonic(), _cpu_seconds(), _file_bytes()
    yield
    if os.environ.get("RANK", "0") != "0":
        return
    read_after, written_after = _file_bytes()
    seconds, images = max(_loops, default=(0.0, 0))
    timing = Timing(
        seconds=time.monotonic() - start,
        cpu_seconds=_cpu_seconds() - cpu,
        peak_memory_bytes=max(usage.ru_maxrss for usage in _usages()) * _RSS_BYTES,
        gpu_memory_bytes=_gpu_memory(),
        read_bytes=None if read is None or read_after is None else read_after - read,
        written_bytes=None if written is None or written_after is None else written_after - written,
        received_bytes=_store["received"],
        sent_bytes=_store["sent"],
        images=images or None,
        images_per_second=images / seconds if images else None,
    )
    with suppress(OSError):  # a full disk does not undo the stage
        atomic_write_bytes(path, to_json(_with_first_rank(timing, path, began)))


def last(stage: str) -> Timing | None:
    """What the stage took when it last ended well in this checkout; None where that is not known."""
    try:
        return read_json(Timing, FOLDER / f"{stage}.json", "")
    except DataError:
        return None


def _with_first_rank(timing: Timing, path: Path, began: float) -> Timing:
    """Of a process that started ranks: with what only the first rank knows, which has written it meanwhile."""
    try:
        rank = read_json(Timing, path, "") if path.stat().st_mtime >= began else None
    except (OSError, DataError):
        return timing
    if rank is None:
        return timing
    names = ("gpu_memory_bytes", "received_bytes", "sent_bytes", "images", "images_per_second")
    return replace(timing, **{name: getattr(rank, name) for name in names})


def _usages() -> list[resource.struct_rusage]:
    return [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]


def _cpu_seconds() -> float:
    return sum(usage.ru_utime + usage.ru_stime for usage in _usages())


def _file_bytes() -> tuple[int | None, int | None]:
    """Bytes read and written so far, as Linux counts them."""
    try:
        lines = Path("/proc/self/io").read_text(encoding="ascii").splitlines()
    except OSError:
        return None, None
    counts = dict(line.split(": ") for line in lines)
    return int(counts["rchar"]), int(counts["wchar"])


def _gpu_memory() -> int | None:
    torch = sys.modules.get("torch")  # a stage that has not imported it has used no GPU
    return int(torch.cuda.max_memory_allocated()) if torch and torch.cuda.is_initialized() else None
