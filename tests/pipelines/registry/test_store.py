"""The registry and its client on a real store: racing, killed, cut off and tampered with."""

import dataclasses
import json
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.registry import release as releases
from pipelines.registry import signing
from pipelines.registry.client import Client
from pipelines.registry.release import Release
from pipelines.registry.store import Registry, parse_alias
from pipelines.runtime.environment import Store
from pipelines.runtime.errors import Unreachable
from pipelines.storage.bucket import Bucket
from tests.support.faultproxy import Fault, FaultProxy, Request

BIG = bytes(range(256)) * 4096  # 1 MiB


def make(folder: Path, text: str = "one") -> tuple[Release, Path]:
    """A small release."""
    for name, body in {"model.safetensors": BIG, "README.md": text.encode(), "pictures/curve.png": b"\x89PNG"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return releases.of_folder("alexnet", folder), folder


@pytest.fixture
def registry(bucket: Bucket) -> Registry:
    return Registry(bucket, "alexnet")


@pytest.fixture
def far(fresh_store: Store, proxy: FaultProxy, no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> Bucket:
    """The registry's bucket through the proxy."""
    monkeypatch.setattr("pipelines.storage.bucket._TIMEOUT_SECONDS", 2.0)
    return Bucket(fresh_store.bucket, dataclasses.replace(fresh_store, endpoint=proxy.endpoint))


@pytest.fixture
def published(registry: Registry, tmp_path: Path) -> Release:
    release, folder = make(tmp_path / "source")
    registry.publish(release, folder, None)
    registry.move("latest", release)
    return release


def keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str = "key") -> signing.PublicKey:
    """Makes a pair of keys, sets the environment to sign with it, and returns the public one."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    key = Ed25519PrivateKey.generate()
    private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    monkeypatch.setenv("ALEXNET_SIGNING_KEY", str(private))
    return signing.PublicKey(public)


# Publishing.


def test_a_version_is_there_whole_and_only_with_its_manifest(registry: Registry, tmp_path: Path) -> None:
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


def test_a_version_with_other_content_is_refused(registry: Registry, tmp_path: Path) -> None:
    release, folder = make(tmp_path)
    registry.bucket.put(registry.key(release.version, "manifest.json"), b"{}")
    with pytest.raises(DataError, match="exists with other content; it was changed, remove it first"):
        registry.publish(release, folder, None)


def test_publishers_that_race_all_succeed_and_the_version_is_whole(registry: Registry, tmp_path: Path) -> None:
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
def test_a_torn_alias_is_named(body: bytes) -> None:
    with pytest.raises(DataError, match="here: not an alias"):
        parse_alias(body, "here")


# Pulling.


def test_what_is_pulled_is_what_was_published(registry: Registry, published: Release, tmp_path: Path) -> None:
    release, folder = Client(registry.bucket, tmp_path / "cache").pull("alexnet@latest", tmp_path / "model")
    assert (release, folder) == (published, tmp_path / "model")
    assert releases.differences(folder, published) == []
    assert (folder / "model.safetensors").read_bytes() == BIG
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


def test_a_pull_over_a_bad_link_ends_right(far: Bucket, proxy: FaultProxy, published: Release, tmp_path: Path) -> None:
    """Cut, silent, failing and damaging, each once."""
    bad = [Fault(cut_at=300_000), Fault(cut_at=100_000, how="reset"), Fault(status=503), Fault(flip_at=99), None]

    def faults(request: Request) -> Fault | None:
        return bad[min(request.number, 4)] if request.path.endswith("model.safetensors") else None

    proxy.faults = faults
    _, folder = Client(far, tmp_path / "cache").pull("alexnet", tmp_path / "model")
    assert (folder / "model.safetensors").read_bytes() == BIG


def test_a_pull_that_was_killed_goes_on_where_it_was(
    far: Bucket, proxy: FaultProxy, published: Release, tmp_path: Path
) -> None:
    blobs = tmp_path / "cache/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{published.files['model.safetensors'].sha256}.part").write_bytes(BIG[:1_000_000])
    proxy.faults = lambda request: (
        Fault(cut_at=60_000) if request.path.endswith("model.safetensors") and not request.number else None
    )
    _, folder = Client(far, tmp_path / "cache").pull("alexnet")
    assert (folder / "model.safetensors").read_bytes() == BIG
    assert proxy.count("GET", "model.safetensors") == 1  # 48,576 bytes were left: below the cut


def test_a_part_file_that_was_damaged_is_fetched_from_its_start(registry: Registry, published: Release, tmp_path: Path) -> None:
    blobs = tmp_path / "cache/blobs"
    blobs.mkdir(parents=True)
    (blobs / f"{published.files['model.safetensors'].sha256}.part").write_bytes(b"not the start of it")
    _, folder = Client(registry.bucket, tmp_path / "cache").pull("alexnet")
    assert releases.differences(folder, published) == []


def test_tampered_weights_are_refused_and_the_cache_is_not_poisoned(
    registry: Registry, published: Release, tmp_path: Path
) -> None:
    key = registry.key(published.version, "model.safetensors")
    registry.bucket.put(key, BIG[:-1] + b"x")
    with pytest.raises(
        DataError, match=r"model.safetensors: sha256 is .* also when fetched again; it was damaged or changed, do not use"
    ):
        Client(registry.bucket, tmp_path / "cache").pull("alexnet", tmp_path / "model")
    assert not (tmp_path / "model").exists()
    assert not list((tmp_path / "cache/blobs").glob("*.part"))
    registry.bucket.put(key, BIG)
    Client(registry.bucket, tmp_path / "cache").pull("alexnet", tmp_path / "model")


def test_a_damaged_cache_heals(registry: Registry, published: Release, tmp_path: Path) -> None:
    _, folder = Client(registry.bucket, tmp_path / "cache").pull("alexnet")
    blob = tmp_path / "cache/blobs" / published.files["README.md"].sha256
    blob.chmod(0o644)
    blob.write_bytes(b"tampered")
    assert releases.differences(folder, published) == ["README.md: changed"]
    assert Client(registry.bucket, tmp_path / "cache").pull("alexnet") == (published, folder)
    assert releases.differences(folder, published) == []


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
        releases.differences(folder, published)
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


# Signatures.


def test_a_signed_release_is_pulled_and_an_unsigned_one_refused(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release, folder = make(tmp_path / "source")
    registry.publish(release, folder, None)
    key = keys(tmp_path, monkeypatch)
    client = Client(registry.bucket, tmp_path / "cache", key)
    with pytest.raises(DataError, match=f"not signed by key {key.id}"):
        client.pull(f"alexnet@{release.version}", tmp_path / "model")
    registry.publish(release, folder, signing.sign(release.manifest()))  # a signature can be added later
    Client(registry.bucket, tmp_path / "cache").pull(f"alexnet@{release.version}", tmp_path / "model")
    client.pull(f"alexnet@{release.version}", tmp_path / "model")  # brings the signature to what is there
    assert (tmp_path / "model/signatures" / f"{key.id}.sig").is_file()
    Client(None, tmp_path / "cache", key).pull(f"alexnet@{release.version}", tmp_path / "model")
    with pytest.raises(DataError, match="no signature by key"):
        Client(None, tmp_path / "cache", keys(tmp_path, monkeypatch, "other")).pull(f"alexnet@{release.version}")


def test_a_signature_over_another_manifest_is_refused(
    registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = keys(tmp_path, monkeypatch)
    release, folder = make(tmp_path / "source")
    signed = signing.sign(b"another manifest")
    registry.publish(release, folder, signed)
    with pytest.raises(DataError, match=f"its signature by key {key.id} is wrong; it was changed"):
        Client(registry.bucket, tmp_path / "cache", key).pull(f"alexnet@{release.version}")


def test_openssl_accepts_our_signature(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import subprocess

    if shutil.which("openssl") is None:
        pytest.skip("no openssl on this machine")
    keys(tmp_path, monkeypatch)
    (tmp_path / "manifest.json").write_bytes(b"body")
    signed = signing.sign(b"body")
    assert signed is not None
    (tmp_path / "one.sig").write_bytes(signed[1])
    command = [
        "openssl",
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-inkey",
        "key.pub",
        "-sigfile",
        "one.sig",
        "-in",
        "manifest.json",
    ]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)


def test_a_key_that_is_none_is_named_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "key.pem"
    monkeypatch.setenv("ALEXNET_SIGNING_KEY", str(path))
    with pytest.raises(DataError, match=r"ALEXNET_SIGNING_KEY: .*No such file.*openssl genpkey"):
        signing.sign(b"")
    path.write_text("-----BEGIN PRIVATE KEY-----\nCANARY\n-----END PRIVATE KEY-----\n")
    with pytest.raises(DataError, match="is no private key in PEM without a password") as caught:
        signing.sign(b"")
    assert "CANARY" not in str(caught.value)
    monkeypatch.setenv("ALEXNET_VERIFY_KEY", str(path))
    with pytest.raises(DataError, match=r"ALEXNET_VERIFY_KEY: .* is no public key in PEM"):
        signing.trusted_key()
    monkeypatch.delenv("ALEXNET_SIGNING_KEY")
    monkeypatch.delenv("ALEXNET_VERIFY_KEY")
    assert signing.sign(b"") is None
    assert signing.trusted_key() is None
