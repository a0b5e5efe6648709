import os
import signal
import threading
import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from alexnet.errors import DataError
from pipelines import executor, index, params, shard
from pipelines.bucket import Bucket
from pipelines.console import Unreachable
from pipelines.places import Store
from pipelines.sources import open_source
from tests import pictures
from tests.workplace import INDEX, MANIFEST, PIXELS, environment, make_workplace

MAPS = [executor.map_ordered, executor.map_unordered]


def slow_square(number: int) -> int:
    time.sleep(0.002 * (number % 5))
    return number * number


def test_results_come_in_order() -> None:
    assert list(executor.map_ordered(slow_square, range(50))) == [n * n for n in range(50)]


def test_results_that_may_come_in_any_order_all_come_once() -> None:
    assert sorted(executor.map_unordered(slow_square, range(50))) == [n * n for n in range(50)]


@pytest.mark.parametrize("mapped", MAPS)
def test_tasks_are_taken_only_a_little_ahead(mapped: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_WORKERS", "2")
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = mapped(slow_square, tasks())
    next(results)
    assert len(taken) <= 6
    results.close()
    assert len(taken) <= 6


@pytest.mark.parametrize("mapped", MAPS)
def test_the_first_failure_ends_it(mapped: Any) -> None:
    def fails(number: int) -> int:
        if number == 3:
            raise DataError("3.jpg: no")
        return number

    with pytest.raises(DataError, match=r"3\.jpg: no"):
        list(mapped(fails, range(1000)))
    assert threading.active_count() < 20


@pytest.mark.parametrize("address", ["localhost:8786", "tcp://localhost", "http://x:1"])
def test_what_is_no_schedulers_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_DASK", address)
    with pytest.raises(DataError, match=f"ALEXNET_DASK: must be a scheduler's address, such as tcp://.*, got '{address}'"):
        list(executor.map_ordered(slow_square, range(3)))


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_SECONDS", 1)
    monkeypatch.setenv("ALEXNET_DASK", "tcp://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"ALEXNET_DASK: no scheduler answers at tcp://127\.0\.0\.1:9 within 1 seconds"):
        list(executor.map_ordered(slow_square, range(3)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dask_workers_make_the_same_bytes_and_one_may_be_killed(
    tmp_path: Path, fresh_store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote: Any = import_module("distributed")

    images = pictures.folder(tmp_path / "images", classes=3, images=60)
    (tmp_path / "work").mkdir()
    workplace = make_workplace(tmp_path / "work", fresh_store, images, monkeypatch)
    workplace.params(shard={"train_shards": 20, "val_shards": 5, "side_px": 128})

    def run() -> tuple[dict[str, bytes], ...]:
        given = params.load()
        table = index.complete(index.scan(open_source(given.source), given.validate), given.validate, 0.25)
        index.write(table, INDEX)
        shard.main(INDEX, MANIFEST, PIXELS)
        made = {key: bucket.get(key) for key in bucket.sizes("shards/")}
        for key in made:
            bucket.delete(key)
        return made, {path.name: path.read_bytes() for path in (INDEX, MANIFEST, PIXELS)}

    by_threads = run()
    os.environ.update(environment(fresh_store, images))
    with (
        remote.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        remote.Client(cluster) as client,
    ):
        monkeypatch.setenv("ALEXNET_DASK", cluster.scheduler_address)
        victim = next(iter(client.run(os.getpid).values()))
        finished = threading.Event()

        def kill() -> None:
            while not bucket.sizes("shards/") and not finished.is_set():
                time.sleep(0.02)
            os.kill(victim, signal.SIGKILL)

        killer = threading.Thread(target=kill)
        killer.start()
        by_dask = run()
        finished.set()
        killer.join()
    assert by_dask == by_threads
