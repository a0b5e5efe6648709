"""Heartbeats: every rank writes one to a shared store twice a second, and ends itself when another's stop coming.

A rank that ends writes its ExitStatus with the last one, so that the others can say why. When the host of the store is
stopped, every call to the store blocks. One thread alone therefore calls it; a second one watches the time.
"""

import json
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace

from torch.distributed import Store  # type: ignore[attr-defined]  # public, but its stub does not export it

from alexnet.config import build
from alexnet.distributed.errors import ExitStatus

_BEAT_SECONDS = 0.5
_STALE_SECONDS = 3.0  # without a heartbeat, once an exchange has failed: enough to call a rank gone
_REPORT_SECONDS = 1.0  # for a status to reach a store that may not answer


@dataclass(frozen=True)
class _Beat:
    """What a rank writes. position: agreements so far, and exchanges since the last one. status: None while it runs."""

    number: int
    position: tuple[int, ...]
    status: ExitStatus | None


class Heartbeat:
    """This rank's heartbeat, and the watch over those of the others.

    Args:
        store: of this attempt alone, over a connection that nothing else uses.
        store_host: names who hosts the store, in messages.
        timeout_seconds: without a heartbeat of another rank for so long, or after its failure, this process ends itself.
        on_death: is called with the reason before this process ends itself; it must not return to training.
    """

    def __init__(
        self,
        store: Store,
        store_host: str,
        rank: int,
        world_size: int,
        timeout_seconds: float,
        on_death: Callable[[ExitStatus], object],
    ) -> None:
        self.rank, self.timeout_seconds, self._on_death = rank, timeout_seconds, on_death
        self._store, self._store_host = store, store_host
        self._parent = os.getppid()
        self._position = (0, 0)
        self._status: ExitStatus | None = None
        self._clock = 0.0  # seconds that this process was awake: a stopped process has not waited for the others
        self._answered = 0.0  # when the store last answered, by that clock
        self._seen = {other: 0.0 for other in range(world_size) if other != rank}  # when a rank's last heartbeat arrived
        self._beats: Mapping[int, _Beat] = {}
        self._wake, self._reported, self._end = threading.Event(), threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=run, name="heartbeat", daemon=True) for run in (self._write, self._watch)]

    def start(self) -> None:
        """Starts both threads."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends both threads, after telling the other ranks that this one is done."""
        self.report(ExitStatus("done"))
        self._end.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(_REPORT_SECONDS)

    def count_agreement(self) -> None:
        """Counts an agreement, which every rank takes part in."""
        self._position = (self._position[0] + 1, 0)

    def count_exchange(self) -> None:
        """Counts an exchange with some other rank."""
        self._position = (self._position[0], self._position[1] + 1)

    def report(self, status: ExitStatus) -> None:
        """Writes why this rank ends. Returns when it is in the store, or after a second."""
        self._reported.clear()
        self._status = status
        self._wake.set()
        self._reported.wait(_REPORT_SECONDS)

    def explain(self) -> str:
        """Why an exchange failed: which ranks ended and why, or which one is behind. Takes up to 6 seconds."""
        deadline = self._clock + 2 * _STALE_SECONDS
        while not (reason := self._ended("failed") or self._silent(_STALE_SECONDS)) and self._clock < deadline:
            time.sleep(_BEAT_SECONDS)
        if reason := reason or self._ended("lost", "hung"):
            return reason
        if behind := [rank for rank, beat in self._beats.items() if beat.position < self._position]:
            last = min(behind, key=lambda rank: self._beats[rank].position)
            return f"rank {last} is alive, but has not reached the exchange that others wait in; it may wait for data"
        return "every other rank is alive, but one reached an exchange too late; it may have waited for data"

    def _write(self) -> None:
        number = 0
        while not self._end.is_set():
            number += 1
            try:
                self._round(number)
            except RuntimeError:
                return  # the connection is lost; the watch sees that the store does not answer
            self._wake.wait(_BEAT_SECONDS)
            self._wake.clear()

    def _round(self, number: int) -> None:
        status = self._status
        self._store.set(f"beat/{self.rank}", json.dumps(asdict(_Beat(number, self._position, status))))
        if status is not None:
            self._reported.set()
        started = [other for other in self._seen if other in self._beats or self._store.check([f"beat/{other}"])]
        texts = self._store.multi_get([f"beat/{other}" for other in started]) if started else []
        beats = {other: build(_Beat, json.loads(text), "heartbeat") for other, text in zip(started, texts, strict=True)}
        for other, beat in beats.items():
            if other not in self._beats or beat.number != self._beats[other].number:
                self._seen[other] = self._clock
        self._beats, self._answered = beats, self._clock

    def _watch(self) -> None:
        last = time.monotonic()
        ended_since: float | None = None
        while not self._end.wait(_BEAT_SECONDS):
            now = time.monotonic()
            self._clock += min(now - last, 4 * _BEAT_SECONDS)
            last = now
            if os.getppid() != self._parent:
                self._die(ExitStatus("lost", f"the launcher, process {self._parent}, is gone"))
            if silent := self._silent(self.timeout_seconds):
                self._die(ExitStatus("hung", silent))
            # A process whose GPU waits for a rank that has ended never learns it from the exchange.
            ended = self._ended("failed") or self._ended("lost", "hung") or (self._status and self._status.message)
            ended_since = (ended_since or self._clock) if ended else None
            if ended and ended_since is not None and self._clock - ended_since > self.timeout_seconds:
                self._die(ExitStatus("lost", ended))

    def _die(self, status: ExitStatus) -> None:
        """Ends this process: its main thread may wait in a collective that never returns."""
        if self._status is None:  # otherwise the reason is reported, and only the end did not come
            self.report(status)
            self._on_death(replace(status, message=f"rank {self.rank}: {status.message}"))
        os._exit(1)

    def _ended(self, *causes: str) -> str:
        """Which other ranks ended for one of these causes, and their reasons."""
        found = {rank: beat.status for rank, beat in self._beats.items() if beat.status and beat.status.cause in causes}
        return "; ".join(f"rank {rank} ended: {status.message}" for rank, status in found.items())

    def _silent(self, seconds: float) -> str:
        """Which other ranks, or the store, gave no heartbeat for so long. Nothing is expected of a rank that has ended."""
        ended = {rank for rank, beat in self._beats.items() if beat.status is not None}
        silent = [f"rank {rank}" for rank, seen in self._seen.items() if rank not in ended and self._clock - seen > seconds]
        done = any(beat.status is not None and beat.status.cause == "done" for beat in self._beats.values())
        if not done and self._clock - self._answered > seconds:  # a store may end with its host once that is done
            silent = [self._store_host]
        return f"{', '.join(silent)} gave no heartbeat for {seconds:.0f} s: killed, stopped or cut off" if silent else ""
