"""Signs of life between the processes of a team, so that whoever ends says who ended before, and nobody waits for a dead one.

Every process counts up a number in a store that all reach, twice a second, from a thread of its own: a process that is
killed, stopped or swapped out counts no more; one that fails leaves its reason there.
"""

import contextlib
import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]  # it is documented there

_BEAT_SECONDS = 0.5
_STALE_SECONDS = 2.5  # without a beat: gone, when something has failed already
_LOST = "lost "


def _process(pid: int) -> str:
    """Names a process for all time: its id, when it began, and whose ids these are. Its id alone where there is no /proc."""
    if not Path("/proc/self/ns/pid").exists():
        return f"{pid} {platform.node()}"
    began = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    return f"{pid} {began} {Path('/proc/self/ns/pid').readlink()} {Path('/proc/sys/kernel/random/boot_id').read_text().strip()}"


class Pulse:
    """This process's own signs, and a watch over those of the others.

    Args:
        store: host and port of the store of this launch.
        attempt: number of the launch's restarts so far.
        patience_seconds: without a sign of another process for so long, this one ends itself.
        on_death: is told why before this process ends itself; it must not return to training.
    """

    def __init__(
        self,
        store: tuple[str, int],
        attempt: int,
        rank: int,
        size: int,
        patience_seconds: float,
        on_death: Callable[[str], None],
    ) -> None:
        self.rank, self.patience_seconds, self._on_death = rank, patience_seconds, on_death
        self._others = [other for other in range(size) if other != rank]
        self._prefix = f"alexnet/{attempt}"
        # A connection of its own: others may block on theirs.
        self._store = TCPStore(*store, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=patience_seconds))
        self._seen = dict.fromkeys(self._others, (0, time.monotonic()))
        self._store.set(f"{self._prefix}/process/{rank}", _process(os.getpid()))
        self._parent = os.getppid()
        self._lock, self._end = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="pulse", daemon=True)

    def start(self) -> None:
        """Begins to give signs and to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ends the watch; the others are told that this is not a death."""
        self._end.set()
        self._thread.join()
        with contextlib.suppress(RuntimeError):  # whoever kept the store may have ended already
            self._store.set(f"{self._prefix}/done/{self.rank}", "")

    def report(self, reason: str, *, lost: bool) -> None:
        """Leaves the reason why this process ends. lost: because of another one, which knows better."""
        with contextlib.suppress(RuntimeError):
            self._store.set(f"{self._prefix}/fault/{self.rank}", (_LOST if lost else "") + reason)

    def explain(self) -> str:
        """Which other processes ended, and why, as far as can be told; takes some seconds."""
        deadline = time.monotonic() + 2 * _STALE_SECONDS
        while True:
            time.sleep(_BEAT_SECONDS)
            faults = self._faults()
            first = {rank: text for rank, text in faults.items() if not text.startswith(_LOST)}
            silent = [rank for rank in self._silent(_STALE_SECONDS) if rank not in faults]
            if first:
                return "; ".join(f"rank {rank} failed: {text}" for rank, text in first.items())
            if silent or time.monotonic() > deadline:
                break
        if silent:
            return f"rank {', '.join(map(str, silent))} gives no sign of life: killed, stopped, or its machine is gone"
        if faults:
            return "; ".join(f"rank {rank} ended: {text.removeprefix(_LOST)}" for rank, text in faults.items())
        return "every other rank is alive, but one did not come to the same point in time; it may wait for data"

    def _run(self) -> None:
        while not self._end.wait(_BEAT_SECONDS):
            if os.getppid() != self._parent:
                self._die(f"the launcher, process {self._parent}, is gone")
            self._look()
            if silent := self._silent(self.patience_seconds):
                self._end_hung(silent)
                self._die(f"rank {', '.join(map(str, silent))} gave no sign of life for {self.patience_seconds:.0f} s")

    def _end_hung(self, ranks: list[int]) -> None:
        """Kills them where they are processes of this machine: a launcher would be polite to them for half a minute."""
        for rank in ranks:
            try:
                found = self._store.get(f"{self._prefix}/process/{rank}").decode()
                pid = int(found.split()[0])
                if found == _process(pid):
                    os.kill(pid, signal.SIGKILL)
            except (RuntimeError, OSError, ValueError):
                continue

    def _die(self, why: str) -> None:
        self.report(why, lost=True)
        self._on_death(f"rank {self.rank}: {why}")
        os._exit(1)  # the main thread may wait in a collective that never returns

    def _look(self) -> None:
        now = time.monotonic()
        try:
            with self._lock:
                self._store.add(f"{self._prefix}/beat/{self.rank}", 1)
                for other in self._others:
                    beat = self._store.add(f"{self._prefix}/beat/{other}", 0)
                    if beat != self._seen[other][0] or self._store.check([f"{self._prefix}/done/{other}"]):
                        self._seen[other] = (beat, now)
        except RuntimeError:
            pass  # the store is gone: its keeper was a parent or a rank, whose end shows elsewhere

    def _silent(self, seconds: float) -> list[int]:
        return [other for other, (_, seen) in self._seen.items() if time.monotonic() - seen > seconds]

    def _faults(self) -> dict[int, str]:
        try:
            with self._lock:
                keys = {other: f"{self._prefix}/fault/{other}" for other in self._others}
                return {other: self._store.get(key).decode() for other, key in keys.items() if self._store.check([key])}
        except RuntimeError:
            return {}
