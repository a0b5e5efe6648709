"""What the tests share: a real object store, started once and filled anew by each test."""

import dataclasses
import itertools
import os
import time
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

# No tool may report anything, also not from a test; and two engines must not fight over the cores.
os.environ |= {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # The checks of shapes cannot be compiled; compiled kernels are compared with plain ones in a process of their own.
    "TORCHDYNAMO_DISABLE": "1",
}
# The user's own store and source have no part in a test.
for _name in (
    "ALEXNET_BUCKET",
    "ALEXNET_REGISTRY",
    "ALEXNET_SOURCE",
    "ALEXNET_CACHE",
    "ALEXNET_STACK_PORT",
    "AWS_ENDPOINT_URL",
):
    os.environ.pop(_name, None)

from infra.stack import Stack  # noqa: E402
from pipelines.runtime.environment import Store  # noqa: E402
from pipelines.storage.bucket import Bucket  # noqa: E402

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A SeaweedFS server of its own ports and data, healthy."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.up()
    yield stack
    stack.down()


@pytest.fixture(scope="session")
def store(stack: Stack) -> Store:
    """The server's two buckets, which the whole session shares, by an identity that may use any other bucket too."""
    places = stack.up()
    access_key, secret_key = stack.admin_key()
    return Store(**(dataclasses.asdict(places) | {"access_key": access_key, "secret_key": secret_key}))


@pytest.fixture
def fresh_store(stack: Stack, store: Store) -> Store:
    """The server with two empty buckets that only this test sees."""
    number = next(_numbers)
    fresh = dataclasses.replace(store, bucket=f"data-{number}", registry=f"registry-{number}")
    admin = stack.admin()
    for name in (fresh.bucket, fresh.registry):
        admin.create_bucket(Bucket=name)
    return fresh


@pytest.fixture
def bucket(fresh_store: Store) -> Bucket:
    """An empty bucket that only this test sees."""
    return Bucket(fresh_store.bucket, fresh_store)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between the attempts of one request: the attempts are what is tested.

    Only the clients' own view of the clock is replaced: the proxy and the caches keep the real one.
    """
    hasty = SimpleNamespace(**(vars(time) | {"sleep": lambda seconds: None}))
    for module in ("botocore.endpoint", "pipelines.storage.bucket"):
        monkeypatch.setattr(f"{module}.time", hasty)
