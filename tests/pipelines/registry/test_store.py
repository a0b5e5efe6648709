"""The registry on a real store: publishers that race, are killed or lose a reply, and aliases."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.registry.release import Release
from pipelines.registry.signing import sign_release
from pipelines.registry.store import Registry
from pipelines.storage.bucket import Bucket
from tests.pipelines.registry.conftest import MakeKeys, make
from tests.support.fault_proxy import Fault, FaultProxy

# Publishing.


def test_a_version_exists_only_once_its_manifest_is_written(registry: Registry, tmp_path: Path) -> None:
    release, folder = make(tmp_path)
    assert registry.publish(release, folder, None)
    assert registry.versions() == [release.version]
    assert registry.manifest(release.version) == release.manifest()
    registry.bucket.delete(registry.key(release.version, "manifest.json"))
    assert registry.versions() == []


def test_the_same_content_published_again_is_the_same_version(registry: Registry, tmp_path: Path) -> None:
    release, folder = make(tmp_path)
    assert [registry.publish(release, folder, None) for _ in range(2)] == [True, False]


def test_a_file_that_was_lost_is_put_back_by_publishing_again(registry: Registry, tmp_path: Path) -> None:
    release, folder = make(tmp_path)
    registry.publish(release, folder, None)
    registry.bucket.delete(registry.key(release.version, "README.md"))
    written: list[str] = []
    registry.publish(release, folder, None, written.append)
    assert written == ["README.md"]


def test_what_was_damaged_is_mended_by_publishing_again(registry: Registry, tmp_path: Path, make_keys: MakeKeys) -> None:
    make_keys("owner")
    release, folder = make(tmp_path / "source")
    registry.publish(release, folder, sign_release(release))
    whole = {key: registry.bucket.get(key) for key in registry.bucket.sizes("alexnet/versions/")}
    for key, body in whole.items():
        registry.bucket.put(key, bytes([body[0] ^ 1, *body[1:]]))
        assert not registry.publish(release, folder, sign_release(release))
        assert registry.bucket.get(key) == body


def test_a_manifest_of_a_newer_program_is_kept(registry: Registry, tmp_path: Path) -> None:
    release, folder = make(tmp_path)
    registry.bucket.put(registry.key(release.version, "manifest.json"), b'{"format": 2}')
    with pytest.raises(DataError, match="is of a newer program; publish with that one"):
        registry.publish(release, folder, None)


def test_one_torn_alias_hides_no_other(registry: Registry, published: Release) -> None:
    registry.move("stable", published)
    registry.bucket.put("alexnet/aliases/latest.json", b"{")
    torn: list[DataError] = []
    assert list(registry.aliases(torn)) == ["stable"]
    assert "alexnet/aliases/latest.json: damaged" in str(torn[0])


def test_publishers_that_race_all_succeed_and_the_version_is_complete(registry: Registry, tmp_path: Path) -> None:
    """Two contents, four publishers: each version whole, and the alias at one of them with the other as its previous."""
    made = [make(tmp_path / str(number), f"content {number % 2}") for number in range(4)]
    gate = threading.Barrier(4)

    def publish(number: int) -> None:
        release, folder = made[number]
        gate.wait()
        registry.publish(release, folder, None)
        registry.move("latest", release)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(publish, range(4)))
    versions = {release.version for release, _ in made}
    assert set(registry.versions()) == versions
    latest = registry.alias("latest")
    assert latest is not None
    assert {latest.version, latest.previous} == versions
    for release, folder in made[:2]:
        for path in release.files:
            assert registry.bucket.get(registry.key(release.version, path)) == (folder / path).read_bytes()


def test_a_publisher_killed_after_any_request_leaves_no_version_and_can_be_repeated(
    registry: Registry, far: Bucket, proxy: FaultProxy, tmp_path: Path
) -> None:
    release, folder = make(tmp_path)
    through = Registry(far, "alexnet")
    for last in range(100):
        count = len(proxy.seen)
        proxy.faults = lambda request, until=count + last: Fault(status=403, code="Killed") if len(proxy.seen) > until else None  # type: ignore[misc]
        try:
            through.publish(release, folder, None)
            break
        except DataError:
            assert registry.versions() == []
    assert last > 5
    assert registry.versions() == [release.version]


def test_a_manifest_whose_reply_is_lost_is_published(far: Bucket, proxy: FaultProxy, tmp_path: Path) -> None:
    release, folder = make(tmp_path)
    through = Registry(far, "alexnet")
    lost = Fault(lose_reply=True)
    proxy.faults = lambda request: (
        lost if request.path.endswith(".json") and request.method == "PUT" and not request.number else None
    )
    assert through.publish(release, folder, None)
    moved = through.move("latest", release)
    assert through.alias("latest") == moved
    assert proxy.count("PUT", "latest.json") == 2


def test_a_store_that_ignores_conditions_gets_no_version(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, folder = make(tmp_path)
    put = Bucket.put
    monkeypatch.setattr(Bucket, "put", lambda self, key, body, **conditions: put(self, key, body))
    with pytest.raises(DataError, match="the store ignores conditional writes"):
        registry.publish(release, folder, None)
    assert registry.bucket.sizes("") == {}


# Aliases.


def test_an_alias_remembers_what_it_pointed_at_and_goes_back(registry: Registry, published: Release, tmp_path: Path) -> None:
    other, folder = make(tmp_path / "other", "two")
    registry.publish(other, folder, None)
    moved = registry.move("latest", other)
    assert (moved.version, moved.previous) == (other.version, published.version)
    assert registry.move("latest", other) == moved  # no second move, previous is kept
    back = registry.rollback("latest")
    assert (back.version, back.previous) == (published.version, other.version)
    assert registry.rollback("latest").version == other.version
    assert set(registry.aliases()) == {"latest"}


def test_an_alias_that_pointed_at_nothing_before_cannot_go_back(registry: Registry, published: Release) -> None:
    with pytest.raises(DataError, match="alexnet@latest: pointed at nothing before; there is nothing to roll back"):
        registry.rollback("latest")
    with pytest.raises(DataError, match="alexnet@champion: no such alias"):
        registry.rollback("champion")


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'{"version": "x"}', b'{"version": "../../x", "manifest_sha256": "", "previous": null, "nonce": ""}'],
)
def test_a_damaged_alias_is_named(registry: Registry, body: bytes) -> None:
    registry.bucket.put("alexnet/aliases/latest.json", body)
    with pytest.raises(DataError, match=r"s3://.*/alexnet/aliases/latest\.json.*; it is damaged: publish again, or remove it"):
        registry.alias("latest")
