import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from alexnet.errors import DataError
from pipelines import shard, validate
from pipelines.config import params
from pipelines.runtime import executor
from pipelines.runtime.environment import Store
from pipelines.runtime.errors import Unreachable
from pipelines.sources.open import open_source
from pipelines.storage.bucket import Bucket
from pipelines.validation import index, scan_cache
from tests.support import dask
from tests.support.stage_folder import (
    INDEX,
    MANIFEST,
    PIXELS,
    REPORT,
    environment,
    make_image_folder,
    make_small_ilsvrc,
    make_stage_folder,
)


def slow_square(number: int) -> int:
    time.sleep(0.002 * (number % 5))
    return number * number


def test_all_results_come_once_in_any_order() -> None:
    assert sorted(executor.map_unordered(slow_square, range(50))) == [n * n for n in range(50)]


def test_tasks_are_taken_only_a_little_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_WORKERS", "2")
    taken: list[int] = []

    def tasks() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results: Any = executor.map_unordered(slow_square, tasks())
    next(results)
    assert len(taken) <= 6
    results.close()
    assert len(taken) <= 6


def test_the_first_failure_ends_it() -> None:
    def fails(number: int) -> int:
        if number == 3:
            raise DataError("3.jpg: no")
        return number

    with pytest.raises(DataError, match=r"3\.jpg: no"):
        list(executor.map_unordered(fails, range(1000)))
    assert threading.active_count() < 20


def test_long_tasks_end_with_the_first_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_WORKERS", "2")

    def long_or_bad(number: int) -> int:
        for _ in range(500 if number else 1):
            executor.raise_if_cancelled()
            time.sleep(0.02)
        raise DataError("0.jpg: no")

    start = time.monotonic()
    with pytest.raises(DataError, match=r"0\.jpg: no"):
        list(executor.map_unordered(long_or_bad, range(10)))
    assert time.monotonic() - start < 5


def test_outside_a_task_nothing_is_cancelled() -> None:
    executor.raise_if_cancelled()


@pytest.mark.parametrize("address", ["localhost:8786", "tcp://localhost", "http://x:1"])
def test_what_is_no_schedulers_address_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_DASK", address)
    with pytest.raises(DataError, match=f"ALEXNET_DASK: must be a scheduler's address, such as tcp://.*, got '{address}'"):
        list(executor.map_unordered(slow_square, range(3)))


@pytest.mark.filterwarnings("ignore")
def test_a_scheduler_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_SECONDS", 1)
    monkeypatch.setenv("ALEXNET_DASK", "tcp://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"ALEXNET_DASK: no scheduler answers at tcp://127\.0\.0\.1:9 within 1 seconds"):
        list(executor.map_unordered(slow_square, range(3)))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.setenv("ALEXNET_DASK", "tcp://127.0.0.1:9")
    with pytest.raises(DataError, match="the package distributed is not installed; install this project's extra `dask`, or"):
        list(executor.map_unordered(slow_square, range(3)))


@pytest.fixture
def scheduler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[bytes]"]:
    """A Dask scheduler without workers, which ALEXNET_DASK names."""
    with dask.scheduler(tmp_path) as (process, address):
        monkeypatch.setenv("ALEXNET_DASK", address)
        yield process


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_cluster_that_fails_is_named(
    scheduler: "subprocess.Popen[bytes]", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executor, "_SECONDS", 2)
    with pytest.raises(
        Unreachable, match=r"the scheduler at tcp://\S+ has had no workers for 2 seconds; start some: `dask wor"
    ):
        list(executor.map_unordered(abs, range(3)))
    with dask.worker(os.environ["ALEXNET_DASK"]):
        monkeypatch.setattr(executor, "_SECONDS", 30)  # a worker takes its time to come
        assert sorted(executor.map_unordered(abs, range(9))) == list(range(9))
        with pytest.raises(DataError, match=r"ALEXNET_DASK: 4 workers died of one task, the last at tcp://\S+; see its log"):
            list(executor.map_unordered(os._exit, [1]))
        (tmp_path / "only_here.py").write_text("def function(task):\n    return task\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        with pytest.raises(
            DataError, match=r"ALEXNET_DASK: scheduler or workers cannot load the task \(No module named 'only_here'\); s"
        ):
            list(executor.map_unordered(import_module("only_here").function, [1]))
        monkeypatch.setattr(executor, "_SECONDS", 2)
        threading.Timer(1, scheduler.kill).start()
        with pytest.raises(
            Unreachable, match=r"the scheduler at tcp://\S+ was lost; start it and run again, what is finished is"
        ):
            list(executor.map_unordered(time.sleep, [0.5] * 60))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_dask_workers_make_the_same_bytes_and_some_may_be_killed(
    tmp_path: Path, fresh_store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote: Any = import_module("distributed")
    make_small_ilsvrc(tmp_path / "archives", synsets=12, images=40, val_images=20, size=(160, 120))
    (tmp_path / "work").mkdir()
    stage_folder = make_stage_folder(tmp_path / "work", fresh_store, tmp_path / "archives", monkeypatch)
    stage_folder.params(source={"name": "imagenet"}, shard={"train_shards": 20, "val_shards": 5, "side_px": 256})
    monkeypatch.setattr("pipelines.sources.archives.imagenet._PARTITION_BYTES", 1 << 20)

    def seen() -> int:
        return len(list(scan_cache.FOLDER.rglob("*.parquet")))

    def made() -> int:
        return sum(key.endswith(".json") for key in bucket.sizes("shards/"))

    def run(during: Callable[[Callable[[], int]], AbstractContextManager[None]]) -> tuple[dict[str, bytes], ...]:
        given = params.load()
        source = open_source(given.source)
        with during(seen):
            rows = scan_cache.open_scan_cache("imagenet", source, given.validate)
            index.write(validate.build_index(source, given.source, given.validate, rows), INDEX)
            parts.append(seen())
        rows.clear()
        with during(made):
            shard.main(INDEX, MANIFEST, PIXELS)
        assert (parts[-1], made()) == (sum(1 for _ in source.partitions()), 25 + 3)  # the manifest and both splits' indexes too
        shards = {key: bucket.get(key) for key in bucket.sizes("shards/")}
        for key in shards:
            bucket.delete(key)
        return shards, {path.name: path.read_bytes() for path in (INDEX, MANIFEST, PIXELS)}

    parts: list[int] = []
    by_threads = run(lambda count: nullcontext())
    os.environ.update(environment(fresh_store, tmp_path / "archives"))
    done: list[int] = []
    with (
        remote.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        remote.Client(cluster, set_as_default=False) as client,
    ):

        @contextmanager
        def killed(count: Callable[[], int]) -> Iterator[None]:
            def kill() -> None:
                while count() < 2:
                    time.sleep(0.01)
                done.append(count())
                os.kill(next(iter(client.run(os.getpid).values())), signal.SIGKILL)

            killer = threading.Thread(target=kill)
            killer.start()
            yield
            killer.join()

        monkeypatch.setenv("ALEXNET_DASK", cluster.scheduler_address)
        by_dask = run(killed)
    assert by_dask == by_threads
    assert done[0] < parts[0] // 2  # there was work left
    assert done[1] < 20  # of 25


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_programs_of_the_stages_run_on_workers_that_were_started_in_another_folder(
    scheduler: "subprocess.Popen[bytes]", tmp_path: Path, fresh_store: Store, bucket: Bucket, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A function of the program's own `__main__` has no importable name: only its code would be sent to the workers."""
    for name in ("work", "elsewhere"):
        (tmp_path / name).mkdir()
    make_stage_folder(tmp_path / "work", fresh_store, make_image_folder(tmp_path / "images"), monkeypatch)
    validated = ["pipelines.validate", "--listing", "x", "--index", str(INDEX), "--report", str(REPORT)]
    sharded = ["pipelines.shard", "--index", str(INDEX), "--manifest", str(MANIFEST), "--pixels", str(PIXELS)]

    def run() -> list[bytes]:
        for command in (validated, sharded):
            subprocess.run([sys.executable, "-m", *command], check=True)
        shards = {key: bucket.get(key) for key in bucket.sizes("shards/")}
        for key in shards:
            bucket.delete(key)
        return [path.read_bytes() for path in (INDEX, REPORT, MANIFEST, PIXELS)] + list(shards.values())

    with dask.worker(os.environ["ALEXNET_DASK"], tmp_path / "elsewhere"):
        by_dask = run()
    monkeypatch.delenv("ALEXNET_DASK")
    assert by_dask == run()
