"""What infra notes in files, where anything may be in their place."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import state


@pytest.mark.parametrize(
    "put",
    [
        lambda path: None,
        Path.mkdir,
        os.mkfifo,
        lambda path: path.symlink_to("nowhere"),
        lambda path: path.symlink_to(path.name),
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.write_bytes(b"[" * 100_000),
        lambda path: path.write_bytes(b"\xff\xfe{\0"),
        lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 40),
    ],
    ids=["nothing", "folder", "pipe", "dangling link", "ring", "device", "nested", "utf-16", "a terabyte"],
)
def test_what_is_no_note_reads_as_none_and_a_note_takes_its_place(put: Callable[[Path], object], tmp_path: Path) -> None:
    path = tmp_path / "note.json"
    put(path)
    assert state.read_json(path) is None
    state.write(path, b"[1]", 0o600)
    assert state.read_json(path) == [1]
    assert [each.name for each in tmp_path.iterdir()] == ["note.json"]
    assert path.stat().st_mode & 0o777 == 0o600


def test_of_a_link_the_link_is_removed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/mine").touch()
    (tmp_path / "link").symlink_to("folder")
    state.remove(tmp_path / "link")
    state.remove(tmp_path / "nothing")
    assert [each.name for each in tmp_path.rglob("*")] == ["folder", "mine"]
