"""The errors of the stages: handling one never handles another by accident."""

import pytest

from alexnet.errors import DataError
from pipelines.runtime.errors import Denied, Exists, Missing, Unreachable

KINDS = (Unreachable, Denied, Missing, Exists)


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_is_a_data_error_and_none_of_the_others(kind: type[DataError]) -> None:
    assert issubclass(kind, DataError)
    assert not issubclass(kind, (ValueError, OSError))
    assert not any(issubclass(kind, other) for other in KINDS if other is not kind)
