"""Heartbeats: which rank failed, which one is behind, and the end of a process that waits for either."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from torch.distributed import PrefixStore, Store, TCPStore  # type: ignore[attr-defined]  # they are documented there

from alexnet.distributed import heartbeat
from alexnet.distributed.errors import ExitStatus
from alexnet.distributed.heartbeat import Heartbeat
from infra import ports
from tests.support.training_run import CONTEXT

TIMEOUT = 60.0  # of tests in which no heartbeat stops


@pytest.fixture
def port() -> int:
    """A free port."""
    return ports.find_free(1)[0]


def connect(port: int, *, keeps: bool) -> Store:
    """The store of one attempt."""
    return PrefixStore("attempt", TCPStore("127.0.0.1", port, is_master=keeps, wait_for_workers=False))


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Heartbeats follow each other faster."""
    monkeypatch.setattr(heartbeat, "_BEAT_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "_STALE_SECONDS", 1.0)


@contextmanager
def two(port: int) -> Iterator[list[Heartbeat]]:
    """The heartbeats of two ranks, both in this process."""
    server = connect(port, keeps=True)
    heartbeats = [Heartbeat(connect(port, keeps=False), "rank 0", rank, 2, TIMEOUT, print) for rank in (0, 1)]
    for each in heartbeats:
        each.start()
    time.sleep(0.5)  # a heartbeat each, and a look at the other's
    yield heartbeats
    for each in heartbeats:
        each.stop()
    del server


def waits_for_ever(port: int, said: Path) -> None:
    """Rank 1, in an exchange that never returns."""
    store = connect(port, keeps=False)
    Heartbeat(store, "rank 0", 1, 2, 6.0, lambda status: said.write_text(f"{status.cause}: {status.message}")).start()
    threading.Event().wait()


def test_a_process_that_does_not_see_why_another_failed_ends_with_that_reason(port: int, tmp_path: Path) -> None:
    """As where a GPU waits for one that has gone: its process learns nothing of the lost connection."""
    server = connect(port, keeps=True)
    first = Heartbeat(connect(port, keeps=False), "rank 0", 0, 2, TIMEOUT, print)
    first.start()
    other = CONTEXT.Process(target=waits_for_ever, args=(port, tmp_path / "said"))
    other.start()
    time.sleep(1.0)
    first.report(ExitStatus("failed", "DataError: k1: torn"))
    other.join(40)
    first.stop()
    del server
    assert other.exitcode == 1
    assert (tmp_path / "said").read_text() == "lost: rank 1: rank 0 ended: DataError: k1: torn"


def test_the_rank_that_is_behind_is_named(port: int) -> None:
    with two(port) as (first, second):
        for each in (first, second):
            each.count_agreement()
            each.count_exchange()
        first.count_exchange()  # and waits there
        assert first.explain() == "rank 1 is alive, but has not reached the exchange that others wait in; it may wait for data"
        assert second.explain().startswith("every other rank is alive, but one reached an exchange too late")


def test_an_agreement_counts_more_than_the_exchanges_before_it(port: int) -> None:
    """A replica without samples skips the exchanges of a step."""
    with two(port) as (first, second):
        second.count_exchange()
        second.count_exchange()
        first.count_agreement()
        assert first.explain().startswith("rank 1 is alive, but has not reached")


def test_a_failure_is_the_reason_before_what_follows_from_it(port: int) -> None:
    with two(port) as (first, second):
        second.report(ExitStatus("failed", "DataError: k1: torn"))
        assert first.explain() == "rank 1 ended: DataError: k1: torn"


def test_a_report_waits_a_second_at_most_for_a_store_that_does_not_answer(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    silent = Heartbeat(connect(port, keeps=True), "rank 0", 0, 2, TIMEOUT, print)
    end = threading.Event()
    monkeypatch.setattr(silent, "_round", lambda number: end.wait(30))
    silent.start()
    began = time.monotonic()
    silent.report(ExitStatus("lost", "a reason"))
    assert 0.9 < time.monotonic() - began < 10
    end.set()
    silent.stop()
