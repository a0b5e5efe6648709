"""What the tests of the registry share: a small published release, and keys to sign with."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from pipelines.registry.release import Release
from pipelines.registry.signing import PublicKey
from pipelines.registry.store import Registry
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support.fault_proxy import FaultProxy

WEIGHTS = bytes(range(256)) * 4096  # 1 MiB
MakeKeys = Callable[[str], PublicKey]


def make(folder: Path, text: str = "one") -> tuple[Release, Path]:
    """A small release and its folder."""
    for name, body in {"model.safetensors": WEIGHTS, "README.md": text.encode(), "pictures/curve.png": b"\x89PNG"}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(body)
    return Release.from_folder("alexnet", folder), folder


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


@pytest.fixture
def make_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakeKeys:
    """Makes a named pair of keys, sets the environment to sign with it, and returns the public one."""

    def make_pair(name: str) -> PublicKey:
        key = Ed25519PrivateKey.generate()
        private, public = tmp_path / f"{name}.pem", tmp_path / f"{name}.pub"
        private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
        monkeypatch.setenv("ALEXNET_SIGNING_KEY", str(private))
        return PublicKey(public)

    return make_pair
