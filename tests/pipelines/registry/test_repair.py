"""Every object of a small registry, damaged on a real store one at a time, is found and mended."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import pytest

from pipelines.registry.aliases import Why
from pipelines.registry.release import Release
from pipelines.registry.repair import Repair
from pipelines.registry.signing import PublicKey, sign_release
from pipelines.registry.store import Registry
from tests.pipelines.registry.conftest import MakeKeys, make
from tests.support.damage import DAMAGES, damage


@pytest.fixture
def signed(registry: Registry, tmp_path: Path, make_keys: MakeKeys) -> tuple[list[Path], PublicKey]:
    """Two signed releases, an alias that moved three times, and what their owner has of them."""
    key, folders, releases = make_keys("owner"), [], []
    for text in ("one", "two"):
        release, folder = make(tmp_path / text, text)
        registry.publish(release, folder, sign_release(release))
        folders.append(folder)
        releases.append(release)
    for release in (*releases, releases[0]):
        registry.move("latest", release, Why("promote", "a test"))
    return folders, key


def objects(registry: Registry) -> dict[str, bytes]:
    return {key: registry.bucket.get(key) for key in registry.bucket.sizes("alexnet/")}


def check_all(
    registry: Registry, signed: tuple[list[Path], PublicKey], damages: dict[str, Callable[[bytes], bytes | None]]
) -> None:
    folders, key = signed
    whole = objects(registry)
    assert len(whole) == 2 * 6 + 1 + 3 * 3  # files, SHA256SUMS, manifest and signature; alias; moves, copies and signatures
    assert list(Repair(registry, [], key, mends=False).faults()) == []
    for place, body in whole.items():
        for name, change in damages.items():
            damage(registry.bucket, place, change(body))
            faults = list(Repair(registry, folders, key, mends=False).faults())
            assert [(each.key, each.mended) for each in faults] == [(place, False)], (name, faults)
            (found,) = Repair(registry, folders, key, mends=True).faults()
            assert (found.key, found.mended) == (place, True), name
            assert registry.bucket.get(place) == body, (place, name)
    assert objects(registry) == whole


def test_every_flipped_bit_is_found_and_mended(registry: Registry, signed: tuple[list[Path], PublicKey]) -> None:
    check_all(registry, signed, {"a flipped bit": DAMAGES["a flipped bit"]})


@pytest.mark.slow
def test_every_damaged_object_is_found_and_mended(registry: Registry, signed: tuple[list[Path], PublicKey]) -> None:
    check_all(registry, signed, DAMAGES)


def test_nothing_is_signed_that_the_owner_does_not_have(registry: Registry, signed: tuple[list[Path], PublicKey]) -> None:
    folders, key = signed
    place = next(each for each in objects(registry) if "/signatures/" in each)
    registry.bucket.put(place, b"\0" * 64)
    (found,) = Repair(registry, [], key, mends=True).faults()
    assert (found.key, found.mended, "its signature by key" in found.fault) == (place, False, True)
    assert registry.bucket.get(place) == b"\0" * 64
    (found,) = Repair(registry, folders, key, mends=True).faults()
    assert found.mended


def test_what_nobody_has_is_named(registry: Registry, published: Release) -> None:
    place = registry.key(published.version, "README.md")
    registry.bucket.put(place, b"eno")
    registry.bucket.put(registry.key(published.version, "more.txt"), b"")
    changed, more = Repair(registry, [], None, mends=True).faults()
    sha256 = hashlib.sha256(b"eno").hexdigest()
    assert (changed.key, changed.mended, changed.fault.startswith(f"sha256 is {sha256}, the manifest says ")) == (
        place,
        False,
        True,
    )
    assert more.fault == "the manifest does not name it; remove it"
