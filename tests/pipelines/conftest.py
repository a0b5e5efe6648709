"""What the tests of the stages share."""

from collections.abc import Iterator

import pytest

import pipelines.storage.bucket
from pipelines.runtime.environment import Store
from tests.support.fault_proxy import FaultProxy


@pytest.fixture
def proxy(fresh_store: Store) -> Iterator[FaultProxy]:
    """A proxy before the store that misbehaves as told."""
    assert fresh_store.endpoint is not None
    proxy = FaultProxy(fresh_store.endpoint)
    yield proxy
    proxy.close()


@pytest.fixture
def impatient(no_pauses: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection without a byte for a second times out, not after a minute."""
    monkeypatch.setattr(pipelines.storage.bucket, "_TIMEOUT_SECONDS", 1.0)
