"""alexnet/shards/cache.py."""

import dataclasses
import fcntl
import json
import multiprocessing
import os
import resource
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from alexnet.errors import DataError
from alexnet.files.sealed import read_sealed, seal
from alexnet.shards.cache import ShardCache
from alexnet.shards.manifest import Shard
from alexnet.shards.tar import TarIndex
from alexnet.shards.verify import verify
from tests.support import sample_shards
from tests.support.processes import kill_when
from tests.support.sample_shards import SampleShards

MADE = sample_shards.make([6, 6, 6, 6])
SHARD = MADE.shards[0]
BODY = MADE.tars[SHARD.name]


class TarStore:
    """Serves the tars, counts and may spoil."""

    def __init__(self, spoil: Callable[[int, bytes], bytes] = lambda attempt, body: body) -> None:
        self.starts: list[tuple[str, int]] = []
        self._spoil = spoil

    def __call__(self, name: str, start: int, size: int) -> Iterator[bytes]:
        self.starts.append((name, start))
        body = self._spoil(len(self.starts), MADE.tars[name])[start : start + size]
        yield from (body[at : at + 1000] for at in range(0, len(body), 1000))


def files(folder: Path, suffix: str) -> list[str]:
    return sorted(path.name for path in folder.glob(f"*{suffix}"))


def flipped(body: bytes, byte: int) -> bytes:
    return body[:byte] + bytes([body[byte] ^ 1]) + body[byte + 1 :]


def test_a_shard_is_fetched_once_and_read_whole(tmp_path: Path) -> None:
    store = TarStore()
    cache = ShardCache(tmp_path, store)
    for _ in range(2):
        cached = cache.open(SHARD)
        assert bytes(cached.bytes) == BODY
        assert [bytes(cached.jpeg(row)) for row in range(6)] == [sample_shards.jpeg(i) for i in range(6)]
    assert bytes(ShardCache(tmp_path, store).open(SHARD).bytes) == BODY
    assert store.starts == [(SHARD.name, 0)]
    assert files(tmp_path, ".part") == files(tmp_path, ".tmp") == []


@pytest.mark.parametrize(
    "wrong", [lambda body: flipped(body, 700), lambda body: body[:-512], lambda body: bytes(512) + body, lambda body: b""]
)
def test_wrong_bytes_are_fetched_once_more(tmp_path: Path, wrong: Callable[[bytes], bytes]) -> None:
    store = TarStore(lambda attempt, body: wrong(body) if attempt == 1 else body)
    assert bytes(ShardCache(tmp_path, store).open(SHARD).bytes) == BODY
    assert len(store.starts) == 2


def test_bytes_that_are_wrong_twice_are_refused_by_name_and_leave_nothing(tmp_path: Path) -> None:
    store = TarStore(lambda attempt, body: flipped(body, 700))
    with pytest.raises(
        DataError,
        match=r"^train-000000\.tar: sha256 is .*, the manifest says .*, also when fetched again; .* run the shard stage",
    ):
        ShardCache(tmp_path, store).open(SHARD)
    assert len(store.starts) == 2
    assert files(tmp_path, ".tar") == files(tmp_path, ".part") == []


def test_another_shards_bytes_are_refused(tmp_path: Path) -> None:
    """Fault 17: swapped objects."""
    with pytest.raises(DataError, match=r"^train-000000\.tar: sha256 is"):
        ShardCache(tmp_path, lambda name, start, size: iter([MADE.tars["train-000001.tar"]])).open(SHARD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"samples": 7}, "train-000000.tar: holds 6 samples, the manifest says 7; run the shard stage again"),
        ({"labels": {0: 3, 1: 3}}, "train-000000.tar: images per label are {0: 2, 1: 2, 2: 2}, the manifest says {0: 3, 1: 3}"),
    ],
)
def test_a_manifest_that_counts_otherwise_is_an_error(tmp_path: Path, change: dict[str, object], message: str) -> None:
    with pytest.raises(DataError) as error:
        ShardCache(tmp_path, TarStore()).open(dataclasses.replace(SHARD, **change))  # type: ignore[arg-type]
    assert message in str(error.value)
    assert files(tmp_path, ".tar") == files(tmp_path, ".part") == []


def test_a_poisoned_member_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    body = sample_shards.tar([("a.jpg", b"x"), ("a.cls", b"0"), ("b.pyd", b"cos\nsystem\n(S'false'\ntR.")])
    shard = sample_shards.describe("train-000000.tar", body, [0])
    with pytest.raises(DataError, match=r"^train-000000\.tar: member 'b\.pyd' .* is not a sample's"):
        ShardCache(tmp_path, lambda name, start, size: iter([body])).open(shard)
    assert files(tmp_path, ".part") == []


def test_a_fetch_that_fails_comes_out_and_is_resumed(tmp_path: Path) -> None:
    def broken(name: str, start: int, size: int) -> Iterator[bytes]:
        yield BODY[:5000]
        raise DataError("s3://b/x: the body broke off")

    with pytest.raises(DataError, match="the body broke off"):
        ShardCache(tmp_path, broken).open(SHARD)
    store = TarStore()
    assert bytes(ShardCache(tmp_path, store).open(SHARD).bytes) == BODY
    assert store.starts == [(SHARD.name, 5000)]


def test_a_part_that_was_damaged_on_the_disk_is_fetched_anew(tmp_path: Path) -> None:
    (tmp_path / f"{SHARD.sha256}.{SHARD.bytes}.part").write_bytes(b"noise" * 100)
    store = TarStore()
    assert bytes(ShardCache(tmp_path, store).open(SHARD).bytes) == BODY
    assert store.starts == [(SHARD.name, 500), (SHARD.name, 0)]


def test_a_cached_file_that_was_changed_is_replaced(tmp_path: Path) -> None:
    store = TarStore()
    ShardCache(tmp_path, store).open(SHARD)
    path = tmp_path / f"{SHARD.sha256}.tar"
    path.write_bytes(flipped(BODY, 700))
    assert bytes(ShardCache(tmp_path, store).open(SHARD).bytes) == BODY
    assert len(store.starts) == 2


@pytest.mark.parametrize("limit", [None, 10**6])
@pytest.mark.parametrize("put", [os.mkfifo, lambda path: path.symlink_to("mine"), lambda path: path.symlink_to("/dev/zero")])
@pytest.mark.parametrize("suffix", ["tar", "json", "json.tmp", f"{SHARD.bytes}.part"])
def test_what_others_lay_in_a_shared_cache_is_not_followed(
    suffix: str, put: Callable[[Path], object], limit: int | None, tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine" * 100_000)
    before = mine.stat().st_mtime_ns
    cache = ShardCache(tmp_path, TarStore(), limit_bytes=limit)
    if suffix == "json":
        cache.open(SHARD)
        (tmp_path / f"{SHARD.sha256}.json").unlink()
    put(tmp_path / f"{SHARD.sha256}.{suffix}")
    for _ in range(2):
        assert bytes(cache.open(SHARD).bytes) == BODY
    assert (mine.read_bytes(), mine.stat().st_mtime_ns) == (b"mine" * 100_000, before)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"{SHARD.sha256}.json", f"{SHARD.sha256}.tar", "mine"])


def test_a_file_from_before_a_restart_is_verified_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is synced: after a power cut the file may be torn though its name, size and time are as before."""
    store = TarStore()
    ShardCache(tmp_path, store).open(SHARD)
    path = tmp_path / f"{SHARD.sha256}.tar"
    status = path.stat()
    path.write_bytes(BODY[:-4096] + bytes(4096 - 1) + b"\1")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    monkeypatch.setattr("alexnet.shards.verify._boot_id", lambda: "the next one")
    for _ in range(2):
        assert bytes(ShardCache(tmp_path, store).open(SHARD).bytes) == BODY
    assert len(store.starts) == 2


def test_locks_and_indexes_do_not_stay_behind(tmp_path: Path) -> None:
    limit = 2 * max(shard.bytes for shard in MADE.shards)
    orphan = "0" * 64
    (tmp_path / f"{orphan}.{limit}.part").write_bytes(b"left by a process that was killed before the last rename")
    (tmp_path / f"{orphan}.json").write_text("{}")
    cache = ShardCache(tmp_path, TarStore(), limit_bytes=limit)
    for shard in MADE.shards:
        cache.open(shard)
    assert len(files(tmp_path, ".tar")) == 2
    assert {path.stem for path in tmp_path.iterdir()} == {path.stem for path in tmp_path.glob("*.tar")}
    assert {path.suffix for path in tmp_path.iterdir()} == {".tar", ".json"}


def test_an_index_does_not_outlive_a_shard_that_is_evicted_while_it_is_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ShardCache(tmp_path, TarStore()).open(SHARD)
    path = tmp_path / f"{SHARD.sha256}.tar"
    os.utime(path, ns=(1, 1))

    def evicted_meanwhile(*args: Any) -> TarIndex:
        path.unlink()
        return verify(*args)

    monkeypatch.setattr("alexnet.shards.cache.verify", evicted_meanwhile)
    assert bytes(ShardCache(tmp_path, TarStore()).open(SHARD).bytes) == BODY
    assert list(tmp_path.iterdir()) == []


def test_a_cached_file_that_was_only_copied_is_verified_and_kept(tmp_path: Path) -> None:
    store = TarStore()
    ShardCache(tmp_path, store).open(SHARD)
    os.utime(tmp_path / f"{SHARD.sha256}.tar", ns=(1, 1))
    assert bytes(ShardCache(tmp_path, store).open(SHARD).bytes) == BODY
    assert len(store.starts) == 1


@pytest.mark.parametrize("index", ["", "{}", "[]", '{"file": 1}', "cut"])
def test_a_damaged_index_is_made_anew(tmp_path: Path, index: str) -> None:
    store = TarStore()
    ShardCache(tmp_path, store).open(SHARD)
    path = tmp_path / f"{SHARD.sha256}.json"
    path.write_text(path.read_text()[:-20] if index == "cut" else index)
    assert ShardCache(tmp_path, store).open(SHARD).index.keys == [f"k{i:05}" for i in range(6)]
    assert len(store.starts) == 1


def test_an_index_that_points_outside_is_made_anew(tmp_path: Path) -> None:
    ShardCache(tmp_path, TarStore()).open(SHARD)
    path = tmp_path / f"{SHARD.sha256}.json"
    tree = json.loads(read_sealed(path) or b"")
    tree["sizes"][0] = 1 << 40
    path.write_bytes(seal(json.dumps(tree).encode()))
    assert ShardCache(tmp_path, TarStore()).open(SHARD).index.sizes[0] == len(sample_shards.jpeg(0))


def test_the_cache_stays_within_two_shards(tmp_path: Path) -> None:
    store = TarStore()
    cache = ShardCache(tmp_path, store, limit_bytes=2 * max(shard.bytes for shard in MADE.shards))
    for shard in MADE.shards * 2:
        assert bytes(cache.open(shard).bytes) == MADE.tars[shard.name]
        assert len(files(tmp_path, ".tar")) <= 2
        assert len(files(tmp_path, ".json")) <= 2


def test_the_shard_used_longest_ago_goes_first(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, TarStore(), limit_bytes=2 * max(shard.bytes for shard in MADE.shards))
    first, second, third, _ = MADE.shards  # the second goes
    for shard in (first, second, first, third):
        cache.open(shard)
    assert set(files(tmp_path, ".tar")) == {f"{first.sha256}.tar", f"{third.sha256}.tar"}


def test_an_evicted_shard_stays_readable_to_who_has_it(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, TarStore(), limit_bytes=max(shard.bytes for shard in MADE.shards))
    held = cache.open(SHARD)
    cache.open(MADE.shards[1])
    assert files(tmp_path, ".tar") == [f"{MADE.shards[1].sha256}.tar"]
    assert bytes(held.bytes) == BODY


def test_a_shard_larger_than_the_cache_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-000000\.tar: has [\d,]+ bytes, the cache may hold 1,000; raise its limit"):
        ShardCache(tmp_path, TarStore(), limit_bytes=1000).open(SHARD)


def test_what_dead_processes_left_makes_room(tmp_path: Path) -> None:
    limit = max(shard.bytes for shard in MADE.shards)
    (tmp_path / f"{'0' * 64}.{limit}.part").write_bytes(b"left")
    assert bytes(ShardCache(tmp_path, TarStore(), limit_bytes=limit).open(SHARD).bytes) == BODY
    assert files(tmp_path, ".part") == []


def test_no_room_because_others_fetch_is_an_error_with_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.shards.cache._PATIENCE_SECONDS", 0.3)
    limit = max(shard.bytes for shard in MADE.shards)
    (tmp_path / f"{'0' * 64}.{limit}.part").write_bytes(b"being filled")
    with (tmp_path / f"{'0' * 64}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(
            DataError, match=r"train-000000\.tar: no room within .* other shards are being fetched; raise the cache's limit"
        ):
            ShardCache(tmp_path, TarStore(), limit_bytes=limit).open(SHARD)


def test_a_link_that_is_too_slow_is_an_error_and_its_bytes_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.shards.cache._PATIENCE_SECONDS", 0.3)

    def slow(name: str, start: int, size: int) -> Iterator[bytes]:
        for at in range(start, len(BODY), 10):
            time.sleep(0.01)
            yield BODY[at : at + 10]

    begin = time.monotonic()
    with pytest.raises(
        DataError, match=r"^train-000000\.tar: only [\d,]+ bytes arrived in .* s, .* check the link to the store and run again"
    ):
        ShardCache(tmp_path, slow).open(SHARD)
    assert time.monotonic() - begin < 5
    assert (tmp_path / f"{SHARD.sha256}.{SHARD.bytes}.part").stat().st_size > 0


def test_a_holder_whose_store_is_away_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.shards.cache._PATIENCE_SECONDS", 0.3)
    asked = threading.Event()

    def away(name: str, start: int, size: int) -> Iterator[bytes]:
        asked.set()
        time.sleep(1)
        return iter([BODY[start:]])

    holder = threading.Thread(target=lambda: ShardCache(tmp_path, away).open(SHARD))
    holder.start()
    asked.wait()
    store = TarStore()
    assert bytes(ShardCache(tmp_path, store, away_seconds=30.0).open(SHARD).bytes) == BODY
    holder.join()
    assert store.starts == []


def test_a_holder_that_makes_no_progress_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alexnet.shards.cache._PATIENCE_SECONDS", 0.3)
    with (tmp_path / f"{SHARD.sha256}.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("4711")
        held.flush()
        with pytest.raises(
            DataError, match=r"train-000000\.tar: process 4711 has held .* without progress; end it and run again"
        ):
            ShardCache(tmp_path, TarStore()).open(SHARD)


def _open_in_small_files(folder: Path, most: int, done: "multiprocessing.Queue[str]") -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    try:
        ShardCache(folder, TarStore()).open(SHARD)
    except OSError as error:
        done.put(str(error))


def test_a_disk_that_takes_no_more_is_the_systems_error_with_the_shards_name_and_leaves_nothing(
    tmp_path: Path,
) -> None:
    """The system refuses at the limit of a process, as a full disk does."""
    context = multiprocessing.get_context("fork")
    done: multiprocessing.Queue[str] = context.Queue()
    process = context.Process(target=_open_in_small_files, args=(tmp_path, 8000, done))
    process.start()
    message = done.get(timeout=30)
    process.join()
    assert message == f"[Errno 27] File too large: '{tmp_path / SHARD.name}'"
    assert list(tmp_path.iterdir()) == []


def test_threads_that_want_the_same_shard_fetch_it_once(tmp_path: Path) -> None:
    store = TarStore()
    cache = ShardCache(tmp_path, store)
    seen: list[bytes] = []
    threads = [threading.Thread(target=lambda: seen.append(bytes(cache.open(SHARD).bytes))) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [BODY] * 6
    assert len(store.starts) == 1


# Several processes.


def _read_all(
    folder: Path, made: SampleShards, limit: int, seconds_a_chunk: float, rounds: int, done: "multiprocessing.Queue[str]"
) -> None:
    def fetch(name: str, start: int, size: int) -> Iterator[bytes]:
        for at in range(start, len(made.tars[name]), 2000):
            time.sleep(seconds_a_chunk)
            yield made.tars[name][at : at + 2000]

    cache = ShardCache(folder, fetch, limit_bytes=limit)
    for _ in range(rounds):
        for shard in made.shards:
            if bytes(cache.open(shard).bytes) != made.tars[shard.name]:
                done.put(f"{shard.name} is wrong")
                return
    done.put("ok")


@pytest.mark.parametrize("kill_after", [0.05, 0.2, 0.4])
def test_two_processes_share_a_cache_of_two_shards_and_one_is_killed(tmp_path: Path, kill_after: float) -> None:
    """The survivor reads the right bytes, ends, and stays within the limit."""
    context = multiprocessing.get_context("fork")
    limit = 2 * max(shard.bytes for shard in MADE.shards)
    done: multiprocessing.Queue[str] = context.Queue()
    lost: multiprocessing.Queue[str] = context.Queue()
    victim = context.Process(target=_read_all, args=(tmp_path, MADE, limit, 0.02, 1000, lost))
    survivor = context.Process(target=_read_all, args=(tmp_path, MADE, limit, 0.002, 6, done))
    victim.start()
    survivor.start()
    time.sleep(kill_after)
    assert victim.pid is not None
    os.kill(victim.pid, signal.SIGKILL)
    victim.join()
    assert done.get(timeout=30) == "ok"
    survivor.join()
    assert sum(path.stat().st_size for path in tmp_path.glob("*.tar")) <= limit
    for shard in MADE.shards:
        store = ShardCache(tmp_path, TarStore(), limit_bytes=limit)
        assert bytes(store.open(shard).bytes) == MADE.tars[shard.name]


def test_what_a_killed_process_fetched_is_not_fetched_again(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    victim = context.Process(target=_read_all, args=(tmp_path, MADE, 1 << 30, 0.05, 1, context.Queue()))
    victim.start()
    part = tmp_path / f"{SHARD.sha256}.{SHARD.bytes}.part"
    kill_when(victim, lambda: part.exists() and part.read_bytes()[:4000] == BODY[:4000])
    store = TarStore()
    assert bytes(ShardCache(tmp_path, store).open(SHARD).bytes) == BODY
    ((_, start),) = store.starts
    assert 2000 <= start < SHARD.bytes


def test_equal_bytes_under_two_names_are_one_file(tmp_path: Path) -> None:
    cache = ShardCache(tmp_path, TarStore())
    cache.open(SHARD)
    other = dataclasses.replace(SHARD, name="val-000000.tar")
    assert bytes(cache.open(other).bytes) == BODY
    assert isinstance(other, Shard)
    assert len(files(tmp_path, ".tar")) == 1
