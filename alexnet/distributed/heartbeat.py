"""Signs of life between the processes of a team, so that whoever ends says who ended before, and nobody waits for a dead one.

Every process leaves a sign in a store that all reach, twice a second, and reads those of the others. One that is killed,
stopped or swapped out leaves none; one that fails leaves its reason. A store whose keeper is stopped answers nobody and lets
everybody wait, so one thread alone talks to it, and another, which never does, watches and ends the process.
"""

import json
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from torch.distributed import Store  # type: ignore[attr-defined]  # public, but its stub does not export it

_BEAT_SECONDS = 0.5
_STALE_SECONDS = 2.5  # without a sign: gone, when something has failed already
_GRACE_SECONDS = 10.0  # from another's failure to the end of a process that does not see it by itself
_REPORT_SECONDS = 1.0  # to leave a last word, in a store that may not answer


def _process(pid: int) -> str:
    """Names a process for all time: its id, when it began, and whose ids these are. Its id alone where there is no /proc."""
    if not Path("/proc/self/ns/pid").exists():
        return f"{pid} {platform.node()}"
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{pid} {_stat(pid)[19]} {Path('/proc/self/ns/pid').readlink()} {boot}"


def _stat(pid: int) -> list[str]:
    """Its state, and what else the kernel says of a process."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _here(process: str) -> int | None:
    """The id of a process that still runs on this machine."""
    try:
        pid = int(process.partition(" ")[0])
        return pid if process == _process(pid) else None
    except (OSError, ValueError):
        return None


def _stopped(pid: int) -> bool:
    try:
        return _stat(pid)[0] == "T"
    except OSError:
        return False


@dataclass(frozen=True)
class _Words:
    """fault: why it ends. lost: because of another process, which knows better. done: it ends well."""

    fault: str = ""
    lost: bool = False
    done: bool = False


@dataclass(frozen=True)
class _Sign:
    """What a process says of itself. votes, exchanges: how many of them it has come to, the latter since the last vote."""

    process: str
    beat: int
    votes: int
    exchanges: int
    words: _Words

    @property
    def at(self) -> tuple[int, int]:
        """Comparable: less is behind."""
        return self.votes, self.exchanges


def _read(text: bytes) -> _Sign:
    found = json.loads(text)
    return _Sign(**found | {"words": _Words(**found["words"])})


class Heartbeat:
    """This process's own signs, and a watch over those of the others.

    Args:
        store: of this attempt alone, over a connection of its own.
        keeper: who keeps the store, for people.
        patience_seconds: without a sign of another process for so long, this one ends itself.
        on_death: is told why before this process ends itself; it must not return to training.
    """

    def __init__(
        self, store: Store, keeper: str, rank: int, size: int, patience_seconds: float, on_death: Callable[[str], object]
    ) -> None:
        self.rank, self.patience_seconds, self._on_death = rank, patience_seconds, on_death
        self._store, self._keeper = store, keeper
        self._others = [other for other in range(size) if other != rank]
        self._process, self._parent = _process(os.getpid()), os.getppid()
        self._at = (0, 0)
        self._words = self._left = _Words()
        self._clock = 0.0  # seconds that this process was awake: who was stopped has not waited for the others
        self._answered = 0.0
        self._seen = dict.fromkeys(self._others, 0.0)
        self._signs: Mapping[int, _Sign] = {}
        self._wake, self._end = threading.Event(), threading.Event()
        self._threads = [threading.Thread(target=run, name="heartbeat", daemon=True) for run in (self._beat, self._watch)]

    def start(self) -> None:
        """Begins to give signs and to watch."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ends the watch; the others are told that this is not a death."""
        self._leave(_Words(done=True))
        self._end.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(_REPORT_SECONDS)

    def vote(self) -> None:
        """Takes note that this process has come to a vote, which every rank takes part in."""
        self._at = (self._at[0] + 1, 0)

    def exchange(self) -> None:
        """Takes note that it has come to an exchange with some other."""
        self._at = (self._at[0], self._at[1] + 1)

    def report(self, reason: str, *, lost: bool) -> None:
        """Leaves the reason why this process ends. lost: because of another one, which knows better."""
        self._leave(_Words(reason, lost))

    def explain(self) -> str:
        """Which other processes ended, and why, as far as can be told; takes some seconds."""
        deadline = time.monotonic() + 2 * _STALE_SECONDS
        while True:
            time.sleep(_BEAT_SECONDS)
            faults = {rank: sign.words for rank, sign in self._signs.items() if sign.words.fault}
            if first := self._failed():
                return first
            gone = [f"rank {rank}" for rank in self._silent(_STALE_SECONDS) if rank not in faults]
            if self._unanswered(_STALE_SECONDS):
                gone = [self._keeper]
            if gone or time.monotonic() > deadline:
                break
        if gone:
            return f"{', '.join(gone)} gives no sign of life: killed, stopped, or its machine is gone"
        if faults:
            return "; ".join(f"rank {rank} ended: {words.fault}" for rank, words in faults.items())
        behind = [rank for rank, sign in self._signs.items() if sign.at < self._at]
        if behind:
            last = min(behind, key=lambda rank: self._signs[rank].at)
            return f"rank {last} is alive, but did not come to where the others wait for it; it may wait for data"
        return "every other rank is alive, but one did not come to the same point in time; it may wait for data"

    def _leave(self, words: _Words) -> None:
        """Returns when the words are in the store, or after a second."""
        self._words = words
        self._wake.set()
        deadline = time.monotonic() + _REPORT_SECONDS
        while self._left != words and self._threads[0].is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)

    def _beat(self) -> None:
        beat = 0
        while not self._end.is_set():
            beat += 1
            try:
                self._round(beat)
            except RuntimeError:
                return  # the connection is lost for good; the watch sees that the store does not answer
            self._wake.wait(_BEAT_SECONDS)
            self._wake.clear()

    def _round(self, beat: int) -> None:
        """Leaves a sign, and reads those of the others that have left one."""
        words = self._words
        sign = _Sign(self._process, beat, *self._at, words)
        self._store.set(f"sign/{self.rank}", json.dumps(asdict(sign)))
        self._left = words
        come = [other for other in self._others if other in self._signs or self._store.check([f"sign/{other}"])]
        texts = self._store.multi_get([f"sign/{other}" for other in come]) if come else []
        signs = {other: _read(text) for other, text in zip(come, texts, strict=True)}
        now = self._clock
        for other, sign in signs.items():
            if other not in self._signs or sign.beat != self._signs[other].beat:
                self._seen[other] = now
        self._signs, self._answered = signs, now

    def _watch(self) -> None:
        last = time.monotonic()
        fault_since: float | None = None
        while not self._end.wait(_BEAT_SECONDS):
            now = time.monotonic()
            self._clock += min(now - last, 4 * _BEAT_SECONDS)
            last = now
            if os.getppid() != self._parent:
                self._die(f"the launcher, process {self._parent}, is gone")
            failed = self._failed() or self._words.fault
            fault_since = (fault_since or self._clock) if failed else None
            if fault_since is not None and self._clock - fault_since > _GRACE_SECONDS:
                self._die(failed)
            self._die_of_silence()

    def _die_of_silence(self) -> None:
        for_so_long = f"gave no sign of life for {self.patience_seconds:.0f} s"
        if self._unanswered(self.patience_seconds):
            local = [pid for sign in self._signs.values() if (pid := _here(sign.process)) is not None]
            self._end_hung([pid for pid in local if _stopped(pid)])
            self._die(f"{self._keeper} {for_so_long}")
        if silent := self._silent(self.patience_seconds):
            known = [self._signs[rank].process for rank in silent if rank in self._signs]
            self._end_hung([pid for process in known if (pid := _here(process)) is not None])
            self._die(f"rank {', '.join(map(str, silent))} {for_so_long}")

    def _end_hung(self, pids: list[int]) -> None:
        """Kills processes of this machine: a launcher would be polite to them for half a minute."""
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                continue

    def _die(self, why: str) -> None:
        if not self._words.fault:  # otherwise the reason is told already, and only the end did not come
            self.report(why, lost=True)
            self._on_death(f"rank {self.rank}: {why}")
        os._exit(1)  # the main thread may wait in a collective that never returns

    def _failed(self) -> str:
        """Which other processes failed by themselves, and why."""
        first = {rank: sign.words for rank, sign in self._signs.items() if sign.words.fault and not sign.words.lost}
        return "; ".join(f"rank {rank} failed: {words.fault}" for rank, words in first.items())

    def _unanswered(self, seconds: float) -> bool:
        """Whether the store has not answered for so long. It may end with its keeper once that is done."""
        done = any(sign.words.done for sign in self._signs.values())
        return not done and self._clock - self._answered > seconds

    def _silent(self, seconds: float) -> list[int]:
        done = {rank for rank, sign in self._signs.items() if sign.words.done}
        return [rank for rank, seen in self._seen.items() if rank not in done and self._clock - seen > seconds]
