"""Fixtures for all tests: one real object store for the session, with fresh buckets for each test."""

import dataclasses
import itertools
import os
import sys
import time
from collections.abc import Iterator
from types import SimpleNamespace

import hypothesis
import pytest

# No telemetry, also not from tests.
os.environ |= {
    "DO_NOT_TRACK": "1",
    "DVC_NO_ANALYTICS": "1",
    "GX_ANALYTICS_ENABLED": "false",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "ALEXNET_STORE_MINUTES": "0",  # a fault that is planted in a store is to be reported at once
    # jaxtyping's shape checks cannot be compiled; tests/support/kernels.py compares compiled kernels in a process without them.
    "TORCHDYNAMO_DISABLE": "1",
    # As many threads as the tests that run at once need; small tensors gain nothing from more.
    "OMP_NUM_THREADS": "1",
}
# Cached bytecode saves most of the import of torch, which many tests do in processes of their own.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False
# Tests do not use the user's store and source.
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

hypothesis.settings.register_profile("untimed", deadline=None)  # a loaded machine must not fail a test
hypothesis.settings.load_profile("untimed")


# The files with the longest tests, longest first.
LONGEST = (
    "test_pipeline.py",
    "test_forms.py",
    "test_kill.py",
    "test_train.py",
    "test_stage.py",
    "test_shard.py",
    "test_paper.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Starts the longest files first, so that of several processes none is left with one of them at the end."""
    ranks = {name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: ranks.get(item.path.name, len(ranks)))


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A running SeaweedFS server with its own ports and data, one for every process that runs tests."""
    stack = Stack(tmp_path_factory.mktemp("stack"))
    stack.up()
    yield stack
    stack.down()


@pytest.fixture(scope="session")
def store(stack: Stack) -> Store:
    """Access to the server's two buckets, shared by the session, with an identity that may use all buckets."""
    access = stack.up()
    access_key, secret_key = stack.admin_key()
    return Store(**(dataclasses.asdict(access) | {"access_key": access_key, "secret_key": secret_key}))


@pytest.fixture
def fresh_store(stack: Stack, store: Store) -> Store:
    """Access to two empty buckets of this test."""
    number = next(_numbers)
    fresh = dataclasses.replace(store, bucket=f"data-{number}", registry=f"registry-{number}")
    admin = stack.admin()
    for name in (fresh.bucket, fresh.registry):
        admin.create_bucket(Bucket=name)
    return fresh


@pytest.fixture
def bucket(fresh_store: Store) -> Bucket:
    """An empty bucket of this test."""
    return Bucket(fresh_store.bucket, fresh_store)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries of a request follow without a pause: the clients' `time.sleep` is replaced, the proxy's and caches' is not."""
    sleepless = SimpleNamespace(**(vars(time) | {"sleep": lambda seconds: None}))
    for module in ("botocore.endpoint", "pipelines.storage.bucket"):
        monkeypatch.setattr(f"{module}.time", sleepless)
