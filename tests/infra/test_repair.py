"""DVC's own files, damaged as a kill or a disk damages them: after the repair DVC runs, and nothing is made again."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from infra import repair

DVC = """
stages:
  make:
    cmd: mkdir -p made && echo one > made/one && echo two > made/two && echo three > single && echo ran >> runs
    outs: [made, single]
"""


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with an empty folder of DVC's."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc" / "tmp").mkdir(parents=True)
    return tmp_path


def _repro() -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return done.stdout if done.returncode == 0 else f"failed: {done.stdout}"


def _flip(path: Path) -> None:
    path.chmod(0o644)
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.slow
def test_after_a_kill_and_a_flipped_bit_dvc_goes_on_and_makes_nothing_again(repository: Path) -> None:
    subprocess.run(["git", "init", "-q"], check=True)
    Path(".dvc/config").write_text("[core]\n    analytics = false\n    check_update = false\n")
    Path("dvc.yaml").write_text(DVC)
    assert "Running stage" in _repro()
    assert repair.repair() == []
    whole = Path("dvc.lock").read_bytes()
    Path("dvc.lock").write_bytes(whole[: whole.index(b"md5") + 2])
    Path(".dvc/tmp/rwlock").write_text('{"write": {"/a": {"pi')
    assert "failed" in _repro()
    objects = sorted(Path(".dvc/cache/files/md5").glob("*/*"))
    before = [path.read_bytes() for path in objects]
    assert len(objects) == 4
    for path in objects:
        _flip(path)
    said = repair.repair()
    assert [line.partition(":")[0] for line in said[:2]] == [".dvc/tmp/rwlock", "dvc.lock"]
    assert all("made again from the workspace" in line for line in said[2:])
    assert [path.read_bytes() for path in objects] == before
    assert "didn't change" in _repro()
    assert Path("runs").read_text() == "ran\n"
    _flip(next(path for path in objects if path.read_bytes() == b"three\n"))
    Path("single").write_text("lost")
    (line,) = repair.repair()
    assert line.endswith("removed, DVC makes or pulls it again")
    _repro()
    assert Path("single").read_text() == "three\n"


def test_a_lock_stays_as_long_as_its_owner_is_dvc(repository: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()", "dvc"], stdin=subprocess.PIPE, cwd="/") as owner:
        living = {"pid": owner.pid, "cmd": "dvc repro"}
        reused, dead = {"pid": os.getppid(), "cmd": "dvc repro"}, {"pid": 2**22 + 1, "cmd": "dvc repro"}
        locks = {"write": {"/a": living, "/b": dead}, "read": {"/c": [reused, living], "/d": [dead]}}
        repair.RWLOCK.write_text(json.dumps(locks))
        assert repair.repair() == [".dvc/tmp/rwlock: removed the locks of processes that have ended"]
        assert json.loads(repair.RWLOCK.read_text()) == {"write": {"/a": living}, "read": {"/c": [living]}}
        assert repair.repair() == []
        owner.communicate(b"\n")


def test_nothing_is_touched_while_dvc_runs_here(repository: Path) -> None:
    repair.RWLOCK.write_text("{")
    with subprocess.Popen([sys.executable, "-c", "input()", "dvc"], stdin=subprocess.PIPE) as running:
        assert repair.repair() == []
        running.communicate(b"\n")
    assert repair.repair() == [".dvc/tmp/rwlock: was damaged; removed, no DVC runs here"]


@pytest.mark.parametrize("end", [len("schema: '2.0'\nstages:\n  make:\n    cmd: x\n"), 20, 0])
def test_a_lock_cut_anywhere_is_put_back(repository: Path, end: int) -> None:
    whole = "schema: '2.0'\nstages:\n  make:\n    cmd: x\n  use:\n    cmd: y\n"
    Path("dvc.lock").write_text(whole)
    assert repair.repair() == []
    Path("dvc.lock").write_text(whole[:end])
    assert repair.repair() == ["dvc.lock: was damaged; its last whole copy is back"]
    assert Path("dvc.lock").read_text() == whole


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: whole + whole.partition("stages:\n")[2],  # both sides of a merge
        lambda whole: f"<<<<<<< HEAD\n{whole}=======\n{whole}>>>>>>> theirs\n",
        lambda whole: whole.replace("2.0", "9.0"),
        lambda whole: "[" * 10_000 + "\n",
        lambda whole: "\0" * 5000,
    ],
)
def test_a_lock_that_dvc_cannot_read_is_put_back(repository: Path, damage: Callable[[str], str]) -> None:
    whole = "schema: '2.0'\nstages:\n  make:\n    cmd: x\n  use:\n    cmd: y\n"
    Path("dvc.lock").write_text(whole)
    assert repair.repair() == []
    Path("dvc.lock").write_text(damage(whole))
    assert repair.repair() == ["dvc.lock: was damaged; its last whole copy is back"]
    assert Path("dvc.lock").read_text() == whole


def test_a_damaged_lock_without_a_copy_is_removed(repository: Path) -> None:
    Path("dvc.lock").write_text("schema: '2.0'\nstages:\n  make:\n    cm")
    (line,) = repair.repair()
    assert line.startswith("dvc.lock: was damaged, and there is no copy; removed")
    assert not Path("dvc.lock").exists()


def test_a_folder_in_a_files_place_is_removed_unless_it_may_be_the_users(repository: Path) -> None:
    whole = "schema: '2.0'\nstages:\n  make:\n    cmd: x\n"
    Path("dvc.lock").write_text(whole)
    repair.RWLOCK.mkdir()
    repair.COPY.mkdir(parents=True)
    assert repair.repair() == [".dvc/tmp/rwlock: was damaged; removed, no DVC runs here"]
    assert repair.COPY.read_text() == whole
    Path("dvc.lock").unlink()
    (repository / "dvc.lock" / "mine").mkdir(parents=True)
    with pytest.raises(SystemExit, match=r"dvc\.lock: is a folder, .* move it away"):
        repair.repair()
    (repository / "dvc.lock").rename(repository / "mine")
    assert repair.repair() == []


PLACES: list[Callable[[Path], object]] = [
    os.mkfifo,
    lambda path: path.symlink_to(path.name),
    lambda path: path.symlink_to("/dev/zero"),
]


@pytest.mark.parametrize("put", PLACES, ids=["pipe", "ring", "device"])
def test_what_is_no_file_is_damaged_and_made_again(put: Callable[[Path], object], repository: Path) -> None:
    """A pipe or a device would be read for ever."""
    Path("dvc.lock").write_text("schema: '2.0'\nstages:\n  make:\n    cmd: x\n")
    assert repair.repair() == []
    whole = Path("dvc.lock").read_bytes()
    for path in (Path("dvc.lock"), repair.COPY, repair.RWLOCK, repair.CONFIG):
        path.unlink(missing_ok=True)
        put(path)
        repair.repair()
    assert Path("dvc.lock").read_bytes() == repair.COPY.read_bytes() == whole
    assert not repair.RWLOCK.is_symlink()
    found = repair.CACHE / "00" / f"{0:030}"
    found.parent.mkdir(parents=True)
    for make in (put, Path.mkdir):
        make(found)
        assert repair.repair() == [f"{found}: is damaged; removed, DVC makes or pulls it again"]


@pytest.mark.parametrize("body", [b"\xff\xfe{\0", b"\x80", b"null", b'{"write": {"/a": {"pid": "1"}}}'])
def test_a_note_of_any_bytes_is_damaged(body: bytes, repository: Path) -> None:
    repair.COPY.parent.mkdir()
    for path in (repair.COPY, repair.RWLOCK):
        path.write_bytes(body)
    Path("dvc.lock").write_text("schema: '2.0'\nstages:\n  make:\n    cmd: x\n")
    assert repair.repair() == [".dvc/tmp/rwlock: was damaged; removed, no DVC runs here"]
    assert repair.COPY.read_bytes() == Path("dvc.lock").read_bytes()


@pytest.mark.parametrize(("name", "works"), [("{x}", False), ("a\udcff", False), ("%s [a-z]*\n$HOME 猫", True)])
def test_a_path_in_which_dvc_fails_is_named_and_once_moved_it_works(
    name: str, works: bool, repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = repository / name
    (place / ".dvc").mkdir(parents=True)
    (place / ".dvc/config").touch()
    monkeypatch.chdir(place)
    assert repair.main() == works
    assert ("rename the folder, or move this checkout" in capsys.readouterr().err) != works
    monkeypatch.chdir(place.rename(repository / "moved"))
    assert repair.main()


def test_dvc_runs_without_git_and_with_it_again(repository: Path) -> None:
    (repository / ".dvc/config").touch()
    (repository / "dvc.yaml").write_text(DVC)
    assert "is not a git repository" in _repro()
    (line,) = repair.allow_no_git()
    assert line.startswith("runs without git, and has no experiments; git said: fatal: not a git repository")
    assert list(repair.allow_no_git()) == []
    assert "Running stage" in _repro()
    subprocess.run(["git", "init", "-q"], check=True)
    assert list(repair.allow_no_git()) == []
    assert "no_scm" not in repair.CONFIG.read_text(encoding="utf-8")
