"""alexnet/shards/download.py: ranges of some bytes stand for those of megabytes."""

import contextlib
import hashlib
import multiprocessing
import tempfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError
from alexnet.shards import download as fetching
from alexnet.shards.download import Fetch, Fetching, PartFile
from alexnet.shards.verify import Mismatch
from tests.support.processes import kill_when

BODY = np.random.default_rng(0).bytes(10_000)


@pytest.fixture
def four_ranges(monkeypatch: pytest.MonkeyPatch) -> None:
    """BODY has four ranges, of 2,500 bytes."""
    monkeypatch.setattr(fetching, "_RANGE", 2500)


class Store:
    """Serves a body by chunks; notes what was asked for, and how many asked at the same time."""

    def __init__(self, body: bytes = BODY, chunk: int = 500, seconds_a_chunk: float = 0.0) -> None:
        self.asked: list[tuple[int, int]] = []
        self.most = 0
        self._body, self._chunk, self._seconds = body, chunk, seconds_a_chunk
        self._now = 0
        self._lock = threading.Lock()

    def __call__(self, name: str, start: int, size: int) -> Iterator[bytes]:
        with self._lock:
            assert name == "x.tar"
            self.asked.append((start, size))
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            for at in range(start, start + size, self._chunk):
                time.sleep(self._seconds)
                yield self._body[at : min(at + self._chunk, start + size)]
        finally:
            with self._lock:
                self._now -= 1


def fetch(
    path: Path,
    store: Fetch,
    body: bytes = BODY,
    *,
    spare: threading.Semaphore | None = None,
    patience_seconds: float = 60.0,
) -> str:
    """The digest of what lies at `path` in the end."""
    with contextlib.closing(PartFile(path, len(body))) as part:
        digest = Fetching("x.tar", part, store, spare or threading.Semaphore(3), lambda size: None).sha256(
            patience_seconds, 20_000.0
        )
        part.cut_note()
    return digest


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_whatever_is_there_is_kept_and_the_rest_is_fetched_once(data: st.DataObject) -> None:
    body = BODY[: data.draw(st.integers(1, 3000))]
    store = Store(body, data.draw(st.integers(1, 700)))
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(fetching, "_RANGE", data.draw(st.integers(1, 4000))):
        path, missing = Path(folder) / "part", len(body)
        if data.draw(st.booleans()):  # a process was killed amid parallel ranges
            with contextlib.closing(PartFile(path, len(body))) as part:
                for number, start in enumerate(part.firsts[:-1]):
                    there = data.draw(st.integers(0, part.firsts[number + 1] - start))
                    part.write(number, body[start : start + there])
                    missing -= there
        else:  # the object's beginning, without a note
            path.write_bytes(body[: data.draw(st.integers(0, len(body)))])
            missing -= path.stat().st_size
        assert fetch(path, store, body, spare=threading.Semaphore(data.draw(st.integers(0, 5)))) == sha256(body)
        assert path.read_bytes() == body
        assert sum(size for _, size in store.asked) == missing


def test_ranges_come_at_the_same_time(tmp_path: Path, four_ranges: None) -> None:
    store, meet = Store(), threading.Barrier(4, timeout=20)

    def together(name: str, start: int, size: int) -> Iterator[bytes]:
        meet.wait()
        return store(name, start, size)

    assert fetch(tmp_path / "part", together) == sha256(BODY)
    assert sorted(store.asked) == [(0, 2500), (2500, 2500), (5000, 2500), (7500, 2500)]


def test_an_object_that_is_small_is_asked_for_once(tmp_path: Path) -> None:
    store = Store()
    assert fetch(tmp_path / "part", store) == sha256(BODY)
    assert store.asked == [(0, len(BODY))]


def test_objects_share_the_spare_streams_and_none_waits_for_them(tmp_path: Path, four_ranges: None) -> None:
    store, spare = Store(seconds_a_chunk=0.01), threading.Semaphore(2)
    found: list[str] = []
    threads = [
        threading.Thread(target=lambda n=n: found.append(fetch(tmp_path / str(n), store, spare=spare))) for n in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [sha256(BODY)] * 3
    assert 3 <= store.most <= 5
    deadline = time.monotonic() + 20
    while not (free := spare.acquire(blocking=False) and spare.acquire(blocking=False)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert free, "a stream was not given back"


def _fetch_slowly(path: Path) -> None:
    fetching._RANGE = 2500
    fetch(path, Store(chunk=100, seconds_a_chunk=0.02))


def test_a_process_killed_amid_its_ranges_leaves_what_came(tmp_path: Path, four_ranges: None) -> None:
    path = tmp_path / "part"
    victim = multiprocessing.get_context("fork").Process(target=_fetch_slowly, args=(path,))
    victim.start()
    kill_when(victim, lambda: path.exists() and path.read_bytes()[5000:5300] == BODY[5000:5300])
    store = Store()
    assert fetch(path, store) == sha256(BODY)
    assert path.read_bytes() == BODY
    assert sum(size for _, size in store.asked) <= len(BODY) - 200
    assert all(0 < size < 2500 for _, size in store.asked)


def test_a_failed_range_ends_the_others_and_what_came_is_kept(tmp_path: Path, four_ranges: None) -> None:
    path, good, others = tmp_path / "part", Store(seconds_a_chunk=0.01), threading.Event()

    def third_fails(name: str, start: int, size: int) -> Iterator[bytes]:
        if start == 5000:
            others.wait(20)
            raise DataError("s3://b/x: the body broke off")
        for chunk in good(name, start, size):
            yield chunk
            others.set()

    with pytest.raises(DataError, match="the body broke off"):
        fetch(path, third_fails)
    store = Store()
    assert fetch(path, store) == sha256(BODY)
    assert 2500 <= sum(size for _, size in store.asked) < len(BODY)


def test_nothing_is_written_after_the_end_by_a_stream_that_was_stuck(tmp_path: Path, four_ranges: None) -> None:
    path, late, done = tmp_path / "part", threading.Event(), threading.Event()

    def stuck(name: str, start: int, size: int) -> Iterator[bytes]:
        if start == 5000:
            late.wait(20)
            yield b"?" * size
            done.set()
        elif start == 0:
            raise DataError("s3://b/x: gone")
        else:
            yield BODY[start : start + size]

    with pytest.raises(DataError, match="gone"):
        fetch(path, stuck)
    kept = path.read_bytes()
    late.set()
    assert not done.wait(0.2)  # it is not asked for more
    assert path.read_bytes() == kept
    assert b"?" * 100 not in kept


def test_a_range_that_stalls_while_others_are_there_is_an_error(tmp_path: Path, four_ranges: None) -> None:
    end = threading.Event()

    def stalls(name: str, start: int, size: int) -> Iterator[bytes]:
        if start == 2500:
            end.wait(20)
        yield BODY[start : start + size]

    with pytest.raises(DataError, match=r"^x\.tar: only 0 bytes came in .* s, 7,500 of 10,000 in all; check the link"):
        fetch(tmp_path / "part", stalls, patience_seconds=0.2)
    end.set()


def test_a_store_that_sends_more_than_it_was_asked_for_reaches_no_other_range(tmp_path: Path, four_ranges: None) -> None:
    """It ignores where a range ends."""
    assert fetch(tmp_path / "part", lambda name, start, size: iter([BODY[start:]])) == sha256(BODY)


def test_an_object_that_ends_early_is_named(tmp_path: Path, four_ranges: None) -> None:
    with pytest.raises(Mismatch, match=r"^x\.tar: ends at byte 9,000, the manifest says 10,000"):
        fetch(tmp_path / "part", lambda name, start, size: iter([BODY[:9000][start : start + size]]))


@pytest.mark.parametrize("there", [b"?" * 20_000, BODY + b"\xff" * 32, BODY + bytes(40)])
def test_a_file_whose_note_is_none_is_fetched_anew(tmp_path: Path, four_ranges: None, there: bytes) -> None:
    (tmp_path / "part").write_bytes(there)
    store = Store()
    assert fetch(tmp_path / "part", store) == sha256(BODY)
    assert sum(size for _, size in store.asked) == len(BODY)


def test_memory_holds_some_chunks_and_not_the_object(tmp_path: Path) -> None:
    size, chunk = 64 << 20, 1 << 16

    def zeros(name: str, start: int, size: int) -> Iterator[bytes]:
        yield from (bytes(chunk) for _ in range(size // chunk))

    tracemalloc.start()
    try:
        with contextlib.closing(PartFile(tmp_path / "part", size)) as part:
            Fetching("x.tar", part, zeros, threading.Semaphore(3), lambda size: None).sha256(60.0, 1.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
