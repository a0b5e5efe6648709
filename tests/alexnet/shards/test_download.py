"""alexnet/shards/download.py."""

import hashlib
import tempfile
import time
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError
from alexnet.shards.download import Fetch, download
from alexnet.shards.verify import Mismatch

BODY = np.random.default_rng(0).bytes(10_000)


class ChunkedStore:
    """Serves a body in chunks, and records what was asked for."""

    def __init__(self, body: bytes = BODY, chunk: int = 500) -> None:
        self.asked: list[tuple[int, int]] = []
        self._body, self._chunk = body, chunk

    def __call__(self, name: str, start: int, size: int) -> Iterator[bytes]:
        assert name == "x.tar"
        self.asked.append((start, size))
        for at in range(start, start + size, self._chunk):
            yield self._body[at : min(at + self._chunk, start + size)]


def fetch(path: Path, store: Fetch, body: bytes = BODY, patience: float = 60.0) -> str:
    """The digest of what lies at `path` in the end."""
    return download("x.tar", len(body), path, store, patience, lambda size: None)


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_the_beginning_that_is_there_is_kept_and_the_rest_is_fetched_once(data: st.DataObject) -> None:
    body = BODY[: data.draw(st.integers(1, 3000))]
    store, there = ChunkedStore(body, data.draw(st.integers(1, 700))), data.draw(st.integers(0, len(body)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "part"
        path.write_bytes(body[:there])
        assert fetch(path, store, body) == sha256(body)
        assert path.read_bytes() == body
    assert store.asked == ([(there, len(body) - there)] if there < len(body) else [])


def test_a_failed_fetch_leaves_its_bytes_for_the_next(tmp_path: Path) -> None:
    def broken(name: str, start: int, size: int) -> Iterator[bytes]:
        yield BODY[:2500]
        raise DataError("s3://b/x: the body broke off")

    with pytest.raises(DataError, match="the body broke off"):
        fetch(tmp_path / "part", broken)
    store = ChunkedStore()
    assert fetch(tmp_path / "part", store) == sha256(BODY)
    assert store.asked == [(2500, 7500)]


def test_an_object_that_comes_too_slowly_is_an_error(tmp_path: Path) -> None:
    def slow(name: str, start: int, size: int) -> Iterator[bytes]:
        for at in range(start, start + size, 10):
            time.sleep(0.01)
            yield BODY[at : at + 10]

    message = r"^x\.tar: only [\d,]+ bytes arrived in .* s, [\d,]+ of 10,000 in all; check the link"
    with pytest.raises(DataError, match=message):
        fetch(tmp_path / "part", slow, patience=0.2)
    assert BODY.startswith((tmp_path / "part").read_bytes())


def test_a_store_that_is_away_is_no_slow_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.shards.download._SILENCE_SECONDS", 0.2)

    def away(name: str, start: int, size: int) -> Iterator[bytes]:
        for at in range(0, 300, 100):
            time.sleep(0.3)
            yield BODY[at : at + 100]

    assert fetch(tmp_path / "part", away, BODY[:300], patience=0.25) == sha256(BODY[:300])


def test_a_store_that_sends_more_than_it_was_asked_for_is_cut_off(tmp_path: Path) -> None:
    assert fetch(tmp_path / "part", lambda name, start, size: iter([BODY[start:], BODY])) == sha256(BODY)
    assert (tmp_path / "part").read_bytes() == BODY


def test_an_object_that_ends_early_is_named(tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match=r"^x\.tar: ends at byte 9,000, the manifest says 10,000"):
        fetch(tmp_path / "part", lambda name, start, size: iter([BODY[:9000][start : start + size]]))


def test_a_part_file_that_is_too_long_is_fetched_anew(tmp_path: Path) -> None:
    (tmp_path / "part").write_bytes(b"?" * 10_001)
    store = ChunkedStore()
    assert fetch(tmp_path / "part", store) == sha256(BODY)
    assert store.asked == [(0, 10_000)]
    assert (tmp_path / "part").read_bytes() == BODY


def test_memory_holds_some_chunks_and_not_the_object(tmp_path: Path) -> None:
    size, chunk = 64 << 20, 1 << 16

    def zeros(name: str, start: int, size: int) -> Iterator[bytes]:
        yield from (bytes(chunk) for _ in range(size // chunk))

    tracemalloc.start()
    try:
        download("x.tar", size, tmp_path / "part", zeros, 60.0, lambda size: None)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 << 20
