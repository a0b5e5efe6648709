"""The client on a real store: bad links, interrupted and concurrent pulls, tampering, signatures."""

import json
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.registry import signing
from pipelines.registry.client import Client, cache_folder, check_folder
from pipelines.registry.release import Release
from pipelines.registry.store import Registry
from pipelines.runtime.errors import Unreachable
from pipelines.storage.bucket import Bucket
from tests.pipelines.registry.conftest import WEIGHTS, MakeKeys, make
from tests.support.fault_proxy import Fault, FaultProxy, Request


def test_what_is_pulled_is_what_was_published(registry: Registry, published: Release, tmp_path: Path) -> None:
    release, folder = Client(registry.bucket, tmp_path / "cache").pull("alexnet@latest", tmp_path / "model")
    assert (release, folder) == (published, tmp_path / "model")
    assert published.differences(folder) == []
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert (folder / "manifest.json").read_bytes() == published.manifest()


def test_a_second_pull_needs_no_store(
    registry: Registry, far: Bucket, proxy: FaultProxy, published: Release, tmp_path: Path
) -> None:
    _, folder = Client(far, tmp_path / "cache").pull(f"alexnet@{published.version}")
    Client(far, tmp_path / "cache").pull("alexnet")
    assert proxy.count("GET", "model.safetensors") == 1
    assert Client(None, tmp_path / "cache").pull("alexnet@latest") == (published, folder)
    with pytest.raises(DataError, match=r"alexnet@other: not in .*; pull it once without --offline"):
        Client(None, tmp_path / "cache").pull("alexnet@other")


def test_without_the_store_the_way_to_the_cache_is_shown(
    far: Bucket, proxy: FaultProxy, published: Release, tmp_path: Path
) -> None:
    Client(far, tmp_path / "cache").pull("alexnet")
    proxy.faults = lambda request: Fault(status=503)
    with pytest.raises(Unreachable, match="it was pulled before: use --offline"):
        Client(far, tmp_path / "cache").pull("alexnet")
    assert Client(None, tmp_path / "cache").pull("alexnet")[0] == published
    with pytest.raises(DataError, match="not in .*other; pull it once without --offline"):
        Client(None, tmp_path / "other").pull("alexnet")
    proxy.faults = lambda request: None
    Client(far, tmp_path / "other").pull("alexnet")
    assert Client(None, tmp_path / "other").pull("alexnet")[0] == published


def test_a_pull_over_a_bad_link_ends_right(far: Bucket, proxy: FaultProxy, published: Release, tmp_path: Path) -> None:
    """Cut, silent, failing and damaging, each once."""
    bad = [Fault(cut_at=300_000), Fault(cut_at=100_000, how="reset"), Fault(status=503), Fault(flip_at=99), None]

    def faults(request: Request) -> Fault | None:
        return bad[min(request.number, 4)] if request.path.endswith("model.safetensors") else None

    proxy.faults = faults
    _, folder = Client(far, tmp_path / "cache").pull("alexnet", tmp_path / "model")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_pull_that_was_killed_goes_on_where_it_was(
    far: Bucket, proxy: FaultProxy, published: Release, tmp_path: Path
) -> None:
    blobs = tmp_path / "cache/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{published.files['model.safetensors'].sha256}.part").write_bytes(WEIGHTS[:1_000_000])
    proxy.faults = lambda request: (
        Fault(cut_at=60_000) if request.path.endswith("model.safetensors") and not request.number else None
    )
    _, folder = Client(far, tmp_path / "cache").pull("alexnet")
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS
    assert proxy.count("GET", "model.safetensors") == 1  # 48,576 bytes were left: below the cut


def test_pulls_at_once_fetch_every_file_once(far: Bucket, proxy: FaultProxy, published: Release, tmp_path: Path) -> None:
    """Into the cache's own folder, and into one folder beside it."""
    for to in (None, tmp_path / "model"):
        gate = threading.Barrier(4)

        def pull(number: int, to: Path | None = to, gate: threading.Barrier = gate) -> tuple[Release, Path]:
            gate.wait()
            return Client(far, tmp_path / "cache").pull("alexnet", to)

        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(pull, range(4)))
        assert len({folder for _, folder in results}) == 1
        assert published.differences(results[0][1]) == []
    assert proxy.count("GET", "model.safetensors") == 1
    assert [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".lock", ".part")] == []


def test_the_current_folder_is_not_replaced(
    registry: Registry, published: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="is the current folder; choose one that is not there yet"):
        Client(registry.bucket, tmp_path / "cache").pull("alexnet", Path())


def test_a_part_file_that_was_damaged_is_fetched_from_its_start(registry: Registry, published: Release, tmp_path: Path) -> None:
    blobs = tmp_path / "cache/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{published.files['model.safetensors'].sha256}.part").write_bytes(b"not the start of it")
    _, folder = Client(registry.bucket, tmp_path / "cache").pull("alexnet")
    assert published.differences(folder) == []


def test_tampered_weights_are_refused_and_the_cache_is_not_poisoned(
    registry: Registry, published: Release, tmp_path: Path
) -> None:
    key = registry.key(published.version, "model.safetensors")
    registry.bucket.put(key, WEIGHTS[:-1] + b"x")
    with pytest.raises(
        DataError, match=r"model.safetensors: sha256 is .* also when fetched again; it was damaged or changed, do not use"
    ):
        Client(registry.bucket, tmp_path / "cache").pull("alexnet", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert not list((tmp_path / "cache/blobs").glob("*.part"))
    registry.bucket.put(key, WEIGHTS)
    Client(registry.bucket, tmp_path / "cache").pull("alexnet", tmp_path / "model")


def test_a_damaged_cache_heals(registry: Registry, published: Release, tmp_path: Path) -> None:
    _, folder = Client(registry.bucket, tmp_path / "cache").pull("alexnet")
    blob = tmp_path / "cache/blobs" / published.files["README.md"].sha256
    blob.chmod(0o644)
    blob.write_bytes(b"tampered")
    assert published.differences(folder) == ["README.md: changed"]
    assert Client(registry.bucket, tmp_path / "cache").pull("alexnet") == (published, folder)
    assert published.differences(folder) == []


def test_an_extra_file_in_the_registry_is_refused(registry: Registry, published: Release, tmp_path: Path) -> None:
    registry.bucket.put(registry.key(published.version, "sitecustomize.py"), b"import this")
    with pytest.raises(DataError, match=r"holds sitecustomize.py, which the manifest does not name; do not use it"):
        Client(registry.bucket, tmp_path / "cache").pull("alexnet", tmp_path / "model")


def test_an_extra_file_among_the_signatures_is_refused_here_and_there(
    registry: Registry, published: Release, tmp_path: Path
) -> None:
    client = Client(registry.bucket, tmp_path / "cache")
    _, folder = client.pull("alexnet")
    (folder / "signatures").mkdir()
    (folder / "signatures/run.py").touch()
    with pytest.raises(DataError, match=r"'signatures/run.py' is no path of a release"):
        published.differences(folder)
    registry.bucket.put(registry.key(published.version, "signatures/run.py"), b"")
    with pytest.raises(DataError, match=r"holds signatures/run.py, which the manifest does not name"):
        client.pull("alexnet", tmp_path / "model")


def test_a_changed_manifest_in_a_pulled_folder_is_put_right(registry: Registry, published: Release, tmp_path: Path) -> None:
    client = Client(registry.bucket, tmp_path / "cache")
    _, folder = client.pull("alexnet")
    (folder / "manifest.json").write_text("{}")
    client.pull("alexnet")
    assert (folder / "manifest.json").read_bytes() == published.manifest()


def test_a_manifest_that_leads_outside_is_refused(registry: Registry, published: Release, tmp_path: Path) -> None:
    tree = json.loads(published.manifest())
    tree["files"]["../../escaped"] = tree["files"]["README.md"]
    registry.bucket.put_json(registry.key(published.version, "manifest.json"), tree)
    with pytest.raises(DataError, match=r"'\.\./\.\./escaped' is no path of a release"):
        Client(registry.bucket, tmp_path / "cache").pull(f"alexnet@{published.version}", tmp_path / "model")


def test_a_manifest_swapped_under_an_alias_is_refused(registry: Registry, published: Release, tmp_path: Path) -> None:
    other, folder = make(tmp_path / "other", "two")
    registry.publish(other, folder, None)
    registry.bucket.put(registry.key(published.version, "manifest.json"), other.manifest())
    with pytest.raises(DataError, match="is not the one the alias was given"):
        Client(registry.bucket, tmp_path / "cache").pull("alexnet@latest")
    with pytest.raises(DataError, match=f"its manifest is that of alexnet@{other.version}"):
        Client(registry.bucket, tmp_path / "cache").pull(f"alexnet@{published.version}")


def test_what_is_not_there_is_named_with_what_is(registry: Registry, published: Release, tmp_path: Path) -> None:
    client = Client(registry.bucket, tmp_path / "cache")
    with pytest.raises(DataError, match=r"alexnet@champion: no such alias in s3://.*; it has: latest"):
        client.pull("alexnet@champion")
    with pytest.raises(DataError, match="alexnet@0000000000000000: no such version"):
        client.pull("alexnet@0000000000000000")


def test_a_folder_of_the_users_own_is_not_replaced_but_an_older_release_is(
    registry: Registry, published: Release, tmp_path: Path
) -> None:
    client, folder = Client(registry.bucket, tmp_path / "cache"), tmp_path / "model"
    client.pull("alexnet", folder)
    other, source = make(tmp_path / "other", "two")
    registry.publish(other, source, None)
    registry.move("latest", other)
    assert client.pull("alexnet", folder) == (other, folder)
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match=r"exists and is not a release as it was pulled \(notes.txt: not in the manifest\)"):
        client.pull(f"alexnet@{published.version}", folder)
    assert (folder / "notes.txt").exists()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_a_signed_release_is_pulled_and_an_unsigned_one_refused(
    registry: Registry, tmp_path: Path, make_keys: MakeKeys
) -> None:
    release, folder = make(tmp_path / "source")
    registry.publish(release, folder, None)
    key = make_keys("key")
    client = Client(registry.bucket, tmp_path / "cache", key)
    with pytest.raises(DataError, match=f"not signed by key {key.id}"):
        client.pull(f"alexnet@{release.version}", tmp_path / "model")
    registry.publish(release, folder, signing.sign(release.manifest()))  # a signature can be added later
    Client(registry.bucket, tmp_path / "cache").pull(f"alexnet@{release.version}", tmp_path / "model")
    client.pull(f"alexnet@{release.version}", tmp_path / "model")  # brings the signature to what is there
    assert (tmp_path / "model/signatures" / f"{key.id}.sig").is_file()
    Client(None, tmp_path / "cache", key).pull(f"alexnet@{release.version}", tmp_path / "model")
    with pytest.raises(DataError, match=r": signature by key .* not in .*; pull it once without --offline"):
        Client(None, tmp_path / "cache", make_keys("other")).pull(f"alexnet@{release.version}")


def test_what_is_refused_replaces_nothing_in_the_cache(registry: Registry, published: Release, tmp_path: Path) -> None:
    client = Client(registry.bucket, tmp_path / "cache")
    whole = client.pull("alexnet@latest")
    client.pull(f"alexnet@{published.version}")
    registry.bucket.put(registry.key(published.version, "manifest.json"), b"[" * 100_000)
    for selector in ("latest", published.version):
        with pytest.raises(DataError):
            client.pull(f"alexnet@{selector}")
        assert Client(None, tmp_path / "cache").pull(f"alexnet@{selector}") == whole


def test_a_folder_counts_only_whole_and_signed(
    registry: Registry, published: Release, tmp_path: Path, make_keys: MakeKeys
) -> None:
    key, folder = make_keys("key"), tmp_path / "model"
    Client(registry.bucket, tmp_path / "cache").pull("alexnet", folder)
    assert check_folder(folder, None) == published
    with pytest.raises(DataError, match=f"not signed by key {key.id}"):
        check_folder(folder, key)
    registry.publish(published, tmp_path / "source", signing.sign(published.manifest()))
    Client(registry.bucket, tmp_path / "cache", key).pull("alexnet", folder)
    assert check_folder(folder, key) == published
    (folder / "model.safetensors").write_bytes(b"others")
    with pytest.raises(DataError, match="changed; pull it again"):
        check_folder(folder, key)
    os.mkfifo(tmp_path / "manifest.json")
    with pytest.raises(DataError, match="is a pipe"):
        check_folder(tmp_path, key)


def test_a_signature_over_another_manifest_is_refused(registry: Registry, tmp_path: Path, make_keys: MakeKeys) -> None:
    key = make_keys("key")
    release, folder = make(tmp_path / "source")
    signed = signing.sign(b"another manifest")
    registry.publish(release, folder, signed)
    with pytest.raises(DataError, match=f"its signature by key {key.id} is wrong; it was changed"):
        Client(registry.bucket, tmp_path / "cache", key).pull(f"alexnet@{release.version}")


def test_a_cache_that_is_no_folder_is_named_by_its_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALEXNET_REGISTRY_CACHE", str(tmp_path / "file"))
    with pytest.raises(DataError, match="ALEXNET_REGISTRY_CACHE: .*file is no folder; set it to a folder"):
        cache_folder()
    monkeypatch.setenv("ALEXNET_REGISTRY_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
