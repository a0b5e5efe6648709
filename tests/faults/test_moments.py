"""P1 and P3: a writer that is killed or fails at any moment leaves the old output or the new one, and the next goes on."""

import dataclasses
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from alexnet.files.atomic import atomic_folder, atomic_write_bytes
from alexnet.training.checkpoint import Checkpoints
from tests.faults.moments import cut_after, failed_at_every_operation, killed_at_every_operation
from tests.support.trained_folder import PIXELS, VALIDATION

pytestmark = pytest.mark.slow  # hundreds of processes
Content = dict[str, bytes]
BYTES = (0, 1, 100, 5000)  # after which a write is cut


def _write_file(path: Path, version: int) -> None:
    atomic_write_bytes(path, bytes([version]) * 9000)


def _write_folder(path: Path, version: int) -> None:
    with atomic_folder(path) as part:
        (part / "weights").write_bytes(bytes([version]) * 9000)
        (part / "config").write_text(str(version))


def _write_statistics(path: Path, version: int) -> None:
    dataclasses.replace(PIXELS, images=version).write(path)


def _write_report(path: Path, version: int) -> None:
    dataclasses.replace(VALIDATION, images=version).write(path)


WRITERS = {"file": _write_file, "folder": _write_folder, "statistics": _write_statistics, "report": _write_report}


def content(folder: Path) -> Content:
    """Every file in a folder, also what has no final name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(params=WRITERS)
def writer(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Callable[[int], None], dict[int, Content]]:
    """Writes a version of an output, and what stands in the folder when version 1, 2 or none is there."""
    write = partial(WRITERS[request.param], tmp_path / "output")
    whole: dict[int, Content] = {0: {}}
    for version in (1, 2):
        write(version)
        whole[version] = content(tmp_path)
    assert whole[1] != whole[2]
    return write, whole


def _restore(folder: Path, whole: Content) -> None:
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name, body in whole.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(body)


def _final(folder: Path) -> Content:
    return {name: body for name, body in content(folder).items() if not name.startswith(".")}


@pytest.mark.parametrize("before", [0, 1])
def test_an_output_is_there_whole_or_not_at_all(
    writer: tuple[Callable[[int], None], dict[int, Content]], before: int, tmp_path: Path
) -> None:
    write, whole = writer
    _restore(tmp_path, whole[before])
    seen = []
    for _ in killed_at_every_operation(lambda: write(2), str(tmp_path)):
        seen.append(_final(tmp_path))
        assert seen[-1] in (whole[before], whole[2])
        _restore_final(tmp_path, whole[before])
    assert seen[0] == whole[before] != whole[2]
    assert len(seen) > 3
    assert content(tmp_path) == whole[2]  # what the killed ones left is gone too
    _restore(tmp_path, whole[before])
    cut = [cut_after(lambda: write(2), size, kill=True) for size in BYTES]
    assert cut[0]
    assert _final(tmp_path) in (whole[before], whole[2])
    assert not cut_after(lambda: write(2), 1 << 30, kill=False)
    assert content(tmp_path) == whole[2]


def _restore_final(folder: Path, whole: Content) -> None:
    """Leaves what has no final name, as a kill leaves it."""
    left = {name: body for name, body in content(folder).items() if name.startswith(".")}
    _restore(folder, whole | left)


def test_an_error_of_the_disk_leaves_no_part(writer: tuple[Callable[[int], None], dict[int, Content]], tmp_path: Path) -> None:
    write, whole = writer
    _restore(tmp_path, whole[1])
    for _ in failed_at_every_operation(lambda: write(2), str(tmp_path)):
        assert _final(tmp_path) in (whole[1], whole[2])
        _restore_final(tmp_path, whole[1])
    assert content(tmp_path) == whole[2]
    _restore(tmp_path, whole[1])
    for size in BYTES:
        if cut_after(lambda: write(2), size, kill=False):
            assert content(tmp_path) == whole[1]
    write(2)
    assert content(tmp_path) == whole[2]


def test_a_checkpoint_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Steps 1 and 2 are there; step 3 comes and step 1 goes."""
    folder = tmp_path / "checkpoints"

    def save(step: int) -> None:
        Checkpoints(folder).save(step, {"fc6.weight": torch.full((64,), float(step))}, {"step": step})

    for step in (1, 2):
        save(step)
    before = content(folder)
    newest = set()
    for _ in killed_at_every_operation(lambda: save(3), os.fspath(folder)):
        found = Checkpoints(folder)
        at = found.newest()
        assert at is not None
        assert not found.set_aside
        assert len(list(folder.iterdir())) <= 3
        newest.add(at[0])
        _restore(folder, before)
    assert newest == {"step-00000002", "step-00000003"}
    assert sorted(path.name for path in folder.iterdir()) == ["step-00000002", "step-00000003"]
