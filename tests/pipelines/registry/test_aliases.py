"""Aliases and the history of their moves, on a real store: races, kills, records that were changed or left out."""

import getpass
import json
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.registry import aliases
from pipelines.registry.aliases import Why
from pipelines.registry.release import Release
from pipelines.registry.store import Registry
from pipelines.runtime.errors import Exists
from pipelines.storage.bucket import Bucket
from tests.pipelines.registry.conftest import MakeKeys, make
from tests.support.fault_proxy import Fault, FaultProxy

OLD = {"version": "0123456789abcdef", "manifest_sha256": "ab" * 32, "previous": None, "nonce": "00"}


@pytest.fixture
def releases(registry: Registry, tmp_path: Path) -> list[Release]:
    """Three, published; no alias points at one."""
    made = [make(tmp_path / text, text) for text in ("one", "two", "three")]
    for release, folder in made:
        registry.publish(release, folder, None)
    return [release for release, _ in made]


def test_every_move_is_recorded_with_who_when_and_why(
    registry: Registry, releases: list[Release], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.move("champion", releases[0])
    monkeypatch.setenv("ALEXNET_WHO", "ada")
    registry.move("champion", releases[1], Why("promote", "looked at its mistakes"))
    registry.move("champion", releases[1], Why("promote", "again"))  # it is there already: no move
    registry.rollback("champion", "birds became planes")
    records = registry.history("champion")
    assert [(each.move.number, each.move.action, each.move.reason) for each in records] == [
        (0, "publish", ""),
        (1, "promote", "looked at its mistakes"),
        (2, "rollback", "birds became planes"),
    ]
    assert [each.move.version for each in records] == [releases[n].version for n in (0, 1, 0)]
    assert [each.move.who for each in records] == [f"{getpass.getuser()}@{socket.gethostname()}", "ada", "ada"]
    assert all(abs(datetime.fromisoformat(each.move.at) - datetime.now(UTC)) < timedelta(hours=1) for each in records)
    assert [each.faults for each in records] == [(), (), ()]
    assert registry.history("other") == []


def test_an_alias_that_was_never_at_the_version_compared_with_is_not_replaced(
    registry: Registry, releases: list[Release]
) -> None:
    assert registry.replace("champion", None, releases[0], Why("publish")).version == releases[0].version
    with pytest.raises(Exists, match="alexnet@champion: another run has moved it to"):
        registry.replace("champion", None, releases[1], Why("publish"))
    assert registry.replace("champion", releases[0].version, releases[1], Why("publish")).version == releases[1].version
    assert registry.replace("champion", releases[0].version, releases[1], Why("publish")).number == 1  # it is there already


def test_movers_that_race_leave_one_unbroken_history(registry: Registry, releases: list[Release]) -> None:
    """Four threads, three moves each: every move has a number of its own, and says what it moved from."""
    start = threading.Barrier(4)

    def run(number: int) -> None:
        start.wait()
        for turn in range(3):
            registry.move("latest", releases[(number + turn) % 3])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(4)))
    moves = [each.move for each in registry.history("latest")]
    assert [each.faults for each in registry.history("latest")] == [()] * len(moves)
    assert [each.number for each in moves] == list(range(len(moves)))
    assert [each.previous for each in moves] == [None, *(each.version for each in moves[:-1])]
    assert registry.alias("latest") == moves[-1]


def test_a_mover_killed_before_its_record_is_recorded_by_the_next(
    registry: Registry, releases: list[Release], far: Bucket, proxy: FaultProxy
) -> None:
    proxy.faults = lambda request: Fault(status=403, code="Killed") if "/history/" in request.path else None
    with pytest.raises(DataError, match="history/latest/000000.json"):
        Registry(far, "alexnet").move("latest", releases[0])
    assert [each.move.version for each in registry.history("latest")] == [releases[0].version]  # from the alias itself
    assert registry.bucket.sizes("alexnet/history/") == {}
    registry.move("latest", releases[1])
    assert [each.move.number for each in registry.history("latest")] == [0, 1]
    assert len(registry.bucket.sizes("alexnet/history/")) == 4  # two moves and their copies


def test_no_record_is_overwritten(registry: Registry, releases: list[Release]) -> None:
    registry.move("latest", releases[0])
    before = registry.bucket.get("alexnet/history/latest/000000.json")
    registry.bucket.delete("alexnet/aliases/latest.json")
    registry.move("latest", releases[1])
    assert registry.bucket.get("alexnet/history/latest/000000.json") == before
    assert [(each.move.number, bool(each.faults)) for each in registry.history("latest")] == [(0, False), (1, True)]


def test_records_that_were_changed_or_removed_are_found(registry: Registry, releases: list[Release]) -> None:
    for number in (0, 1, 2):
        registry.move("latest", releases[number])
    key = "alexnet/history/latest/000001.json"
    body = registry.bucket.get(key)
    registry.bucket.put(key, json.dumps(json.loads(body) | {"who": "nobody"}, indent=1, sort_keys=True).encode())
    follows = "does not follow the move before it: one was changed, or is missing"
    assert [each.faults for each in registry.history("latest")] == [(), (), (follows,)]
    registry.bucket.delete(key)
    assert [each.faults for each in registry.history("latest")] == [(), (follows,)]
    registry.bucket.put(key, registry.bucket.get("alexnet/history/latest/000002.json"))
    assert "says that it is move 2" in registry.history("latest")[1].faults[0]
    registry.bucket.put(key, body)
    registry.bucket.put("alexnet/aliases/latest.json", body)
    assert registry.history("latest")[2].faults == ("the alias points at move 1 again: it was replaced by an older one",)
    registry.bucket.put(key, b"{")
    with pytest.raises(DataError, match=r"history/latest/000001\.json: damaged"):
        registry.history("latest")


def test_moves_are_signed_where_there_is_a_key(
    registry: Registry, releases: list[Release], make_keys: MakeKeys, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = make_keys("mine")
    registry.move("latest", releases[0])
    monkeypatch.delenv("ALEXNET_SIGNING_KEY")
    registry.move("latest", releases[1])
    assert [each.signed_by for each in registry.history("latest")] == [(mine.id,), ()]
    assert [each.faults for each in registry.history("latest", mine)] == [(), (f"is not signed by key {mine.id}",)]
    signature = f"alexnet/history/latest/000000.{mine.id}.sig"
    registry.bucket.put(signature, bytes(64))
    assert "its signature by key" in registry.history("latest", mine)[0].faults[0]


def test_an_alias_of_an_older_program_is_the_first_move(registry: Registry, releases: list[Release]) -> None:
    registry.bucket.put("alexnet/aliases/latest.json", json.dumps(OLD).encode())
    found = registry.alias("latest")
    assert found is not None
    assert (found.version, found.number, found.who) == (OLD["version"], 0, "")
    registry.move("latest", releases[0])
    assert [(each.move.version, each.faults) for each in registry.history("latest")] == [
        (OLD["version"], ()),
        (releases[0].version, ()),
    ]


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError

    monkeypatch.setattr(getpass, "getuser", nobody)
    assert aliases.who().split("@")[0].isdigit()
