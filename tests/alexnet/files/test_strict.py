"""What comes from outside is read within bounds, or refused by name."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError
from alexnet.files.strict import loads, open_regular, read_bytes, reason, shown

LEAVES = (
    st.none() | st.booleans() | st.integers(-(1 << 70), 1 << 70) | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
TREES = st.recursive(LEAVES, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8)


@given(TREES)
@settings(max_examples=40, deadline=None)
def test_what_json_can_hold_reads_back(tree: Any) -> None:
    assert loads(json.dumps(tree).encode()) == tree


@given(st.binary(max_size=40) | st.text('[]{}",:0123456789eE+-.\\ud8truefalsnN', max_size=40).map(str.encode))
@settings(max_examples=200, deadline=None)
def test_any_other_bytes_are_refused_by_one_error(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        json.dumps(loads(data), allow_nan=False).encode()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b'{"a": 1, "b": 2, "a": 3}', "'a' twice"),
        (b"[NaN]", "NaN, which is not finite"),
        (b"[-Infinity]", "-Infinity, which is not finite"),
        (b"[1e999]", "1e999, which is not finite"),
        (b"1" * 10_000, "integer string conversion"),
        (b'["\\ud800"]', "surrogates not allowed"),
        ("é".encode("latin1"), "codec can't decode"),
    ],
)
def test_what_json_does_not_have_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loads(data)


def test_only_regular_files_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(DataError, match="is a pipe, a device or a socket"):
            read_bytes(path)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


def test_a_file_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "sparse").open("wb") as file:
        file.truncate(20 << 30)
    with pytest.raises(DataError, match="has 21,474,836,480 bytes; at most 67,108,864 are read"):
        read_bytes(tmp_path / "sparse")


def test_a_value_is_shown_in_a_line_that_a_terminal_takes_for_text() -> None:
    deep: list[Any] = []
    for _ in range(100_000):
        deep = [deep]
    assert shown("\x1b[2J\n") == "'\\x1b[2J\\n'"
    assert len(shown("x" * 10**6)) < 210
    assert shown(deep) == "something nested too deeply"
    assert shown(10**5000) == "a number of thousands of digits"


def test_a_reason_does_not_repeat_the_file() -> None:
    assert reason(KeyError("x")) == "KeyError: 'x'"
    assert len(reason(ValueError("x" * 10**6))) < 220
