"""A folder of images out of a package: whole or not at all, and once."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.sources.packaged import write_once


def _files() -> Iterator[tuple[str, bytes]]:
    yield "a/1.png", b"one"
    yield "b/2.png", b"two"


def test_a_folder_is_written_once_with_times_that_are_equal_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disks of others are not waited for."""
    monkeypatch.setattr(os, "sync", lambda: pytest.fail("flushed every disk"))
    root = tmp_path / "sources" / "digits"
    write_once(root, _files)
    assert (root / "b" / "2.png").read_bytes() == b"two"
    assert (root / "a" / "1.png").stat().st_mtime == 0
    write_once(root, lambda: pytest.fail("written again"))


def test_a_folder_whose_writing_broke_off_is_not_there(tmp_path: Path) -> None:
    def broken() -> Iterator[tuple[str, bytes]]:
        yield "a/1.png", b"one"
        raise OSError("no more")

    with pytest.raises(OSError, match="no more"):
        write_once(tmp_path / "digits", broken)
    assert list(tmp_path.iterdir()) == []


def test_who_comes_second_takes_what_the_first_wrote(tmp_path: Path) -> None:
    root = tmp_path / "digits"

    def overtaken() -> Iterator[tuple[str, bytes]]:
        yield from _files()
        (root / "a").mkdir(parents=True)
        (root / "a" / "1.png").write_bytes(b"first")

    write_once(root, overtaken)
    assert (root / "a" / "1.png").read_bytes() == b"first"
    assert not list(tmp_path.glob(".*"))
