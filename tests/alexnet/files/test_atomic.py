import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from alexnet.files import atomic
from alexnet.files.atomic import atomic_folder, atomic_write, atomic_write_bytes


class PowerCutError(Exception):
    pass


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def cut_the_power() -> bool:
    raise PowerCutError


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    atomic_write_bytes(tmp_path / "sub" / "file", b"old")
    atomic_write_bytes(tmp_path / "sub" / "file", b"new")
    assert (tmp_path / "sub" / "file").read_bytes() == b"new"
    assert names(tmp_path / "sub") == ["file"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(PowerCutError), atomic_write(path) as part:
        _ = (part.write_bytes(b"half"), cut_the_power())
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["file"]


def test_a_folder_is_replaced_whole_and_an_error_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with atomic_folder(folder) as part:
        (part / "first").write_text("1")
    with atomic_folder(folder) as part:
        (part / "second").write_text("2")
    assert names(folder) == ["second"]
    with pytest.raises(PowerCutError), atomic_folder(folder) as part:
        _ = ((part / "third").write_text("3"), cut_the_power())
    assert names(folder) == ["second"]
    assert names(tmp_path) == ["folder"]


def test_what_is_written_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[tuple[str, bool]] = []
    target = tmp_path / "folder"
    monkeypatch.setattr(atomic, "sync", lambda path: synced.append((path.name, target.exists())))
    with atomic_folder(target) as part:
        (part / "file").write_text("1")
    assert synced[:2] == [("file", False), (part.name, False)]
    assert synced[2:] == [(tmp_path.name, True)]


def test_a_rename_that_fails_leaves_the_old_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    with atomic_folder(folder) as part:
        (part / "first").write_text("1")
    rename = Path.rename

    def refuse_parts(self: Path, target: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse_parts)
    monkeypatch.setattr(atomic, "_exchange", lambda *_: False)  # as where the file system cannot
    with pytest.raises(OSError, match="No space left"), atomic_folder(folder) as part:
        (part / "second").write_text("2")
    assert names(folder) == ["first"]
    assert names(tmp_path) == ["folder"]


def test_there_is_always_a_folder(tmp_path: Path) -> None:
    """Another thread looks for it all the time."""
    folder, stop, missing = tmp_path / "folder", threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            missing.extend([] if (folder / "file").exists() else [1])

    with atomic_folder(folder) as part:
        (part / "file").write_text("0")
    with ThreadPoolExecutor() as pool:
        looking = pool.submit(look)
        for number in range(20):
            with atomic_folder(folder) as part:
                (part / "file").write_text(str(number))
        stop.set()
        looking.result()
    assert not missing
    assert names(tmp_path) == ["folder"]


def test_a_link_stays_and_what_it_leads_to_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    with atomic_folder(tmp_path / "link") as part:
        (part / "file").write_text("1")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["file"]
    assert names(tmp_path) == ["link", "real"]


LEAVE = """
import os, sys
from pathlib import Path
from alexnet.files.atomic import atomic_folder, atomic_write
with atomic_folder(Path(sys.argv[1])) as folder, atomic_write(Path(sys.argv[2])) as part:
    (folder / "half").write_text("1")
    part.write_text("1")
    os._exit(9)
"""


def test_what_a_killed_process_left_is_removed_and_a_living_one_keeps_its_own(tmp_path: Path) -> None:
    folder, file, host = tmp_path / "folder", tmp_path / "file", os.uname().nodename
    subprocess.run([sys.executable, "-c", LEAVE, str(folder), str(file)], check=False)
    kept = [f".file.{atomic._machine()}.1.1.part", ".file.other.9999999.1.part", f".file.{host}-1.9999999.1.part"]
    for name, of in zip(kept, ("a process that lives", "another machine", "another container of this name"), strict=True):
        (tmp_path / name).write_text(of)
    assert len(names(tmp_path)) == 5
    with atomic_folder(folder) as part, atomic_write(file) as written:
        _ = ((part / "whole").write_text("1"), written.write_text("1"))
    assert names(tmp_path) == sorted([*kept, "file", "folder"])
