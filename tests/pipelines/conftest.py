"""What the tests of the stages share."""

from collections.abc import Iterator

import pytest

from pipelines.places import Store
from tests.faultproxy import FaultProxy


@pytest.fixture
def proxy(fresh_store: Store) -> Iterator[FaultProxy]:
    """A proxy before the store that misbehaves as told."""
    assert fresh_store.endpoint is not None
    proxy = FaultProxy(fresh_store.endpoint)
    yield proxy
    proxy.close()
