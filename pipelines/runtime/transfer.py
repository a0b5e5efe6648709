"""How far files are on their way to or from the registry."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

from pipelines.runtime import console


@contextmanager
def progress(total: int, label: str) -> Iterator[Callable[[int], None]]:
    """Counts bytes from any thread: a bar on a terminal, a line now and then otherwise; standard output is the caller's."""
    lock, done, last = threading.Lock(), 0, time.monotonic()
    with tqdm(total=total, desc=label, unit="B", unit_scale=True, leave=False, disable=not console.is_terminal()) as bar:

        def came(count: int) -> None:
            nonlocal done, last
            with lock:
                done += count
                bar.update(count)
                if bar.disable and time.monotonic() - last > console.LINE_SECONDS:
                    last = time.monotonic()
                    print(f"{label}: {done / 1e6:,.0f} of {total / 1e6:,.0f} MB", file=sys.stderr, flush=True)

        yield came
