"""alexnet/files/locks.py; what the cache makes of it is in test_cache.py."""

import multiprocessing
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.errors import DataError
from alexnet.files import locks as flock
from alexnet.files.locks import Busy

ROUNDS, THREADS, PROCESSES = 20, 2, 3


def _count_up(folder: Path) -> None:
    flock.POLL_SECONDS = 0.001

    def count() -> None:
        for _ in range(ROUNDS):
            with flock.flock(folder / "lock", 60.0, "the counter"):
                counter = folder / "counter"
                counter.write_text(str(int(counter.read_text()) + 1))

    threads = [threading.Thread(target=count) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def test_one_at_a_time_holds_a_lock_though_its_file_is_removed_every_time(tmp_path: Path) -> None:
    (tmp_path / "counter").write_text("0")
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=_count_up, args=(tmp_path,)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    assert int((tmp_path / "counter").read_text()) == ROUNDS * THREADS * PROCESSES
    assert not (tmp_path / "lock").exists()


def test_a_lock_that_is_held_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with flock.flock(path, 1.0, "it"):
        message = r"^it: process \d+ has held .*lock for 0 s without progress"
        with pytest.raises(Busy, match=message), flock.flock(path, 0.0, "it"):
            pass
        assert path.exists()
    assert not path.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "lock").symlink_to("mine")
    with pytest.raises(DataError, match="found is a link"), flock.flock(tmp_path / "lock", 0.0, ""):
        pass
    assert (tmp_path / "mine").read_text() == "mine"


@pytest.mark.parametrize(
    "make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to(path.name)], ids=["folder", "pipe", "ring"]
)
def test_what_is_no_lock_file_is_named_and_once_removed_the_lock_is_had(make: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "lock"
    make(path)
    with pytest.raises(DataError, match="lock: a lock is kept there, .* remove it and run again"), flock.flock(path, 0.0, ""):
        pass
    path.rmdir() if path.is_dir() else path.unlink()
    with flock.flock(path, 0.0, ""):
        assert path.is_file()
