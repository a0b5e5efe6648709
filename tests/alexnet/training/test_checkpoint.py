"""Checkpoints: whole and verified, or absent."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from alexnet.errors import DataError
from alexnet.files.locks import Busy
from alexnet.training.checkpoint import Checkpoints


def tensors(step: int) -> dict[str, Tensor]:
    """Something to keep."""
    return {
        "fc6.weight": torch.arange(24.0).view(4, 6) + step,
        "fc6.bias": torch.arange(4.0),
        "velocity/fc6.bias": torch.ones(4),
    }


def save(checkpoints: Checkpoints, step: int) -> None:
    """One checkpoint of a step."""
    checkpoints.save(step, tensors(step), {"step": step, "loss": 0.1})


@pytest.fixture
def two(tmp_path: Path) -> Checkpoints:
    """Steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path / "run")
    for step in (1, 2):
        save(checkpoints, step)
    return checkpoints


def test_a_fresh_folder_has_none(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "none").newest() is None


def test_the_newest_comes_back_as_it_was(two: Checkpoints) -> None:
    found = two.newest()
    assert found == ("step-00000002", {"step": 2, "loss": 0.1})
    with two.open("step-00000002") as read:
        assert read is not None
        assert set(read) == set(tensors(2))
        assert len(read) == 3
        assert "fc7.bias" not in read
        for name, tensor in tensors(2).items():
            assert torch.equal(read[name][:], tensor)


def test_a_form_reads_its_slices(two: Checkpoints) -> None:
    with two.open("step-00000002") as read:
        assert read is not None
        columns = read["fc6.weight"][slice(None), slice(3, 6)]
        assert torch.equal(columns, tensors(2)["fc6.weight"][:, 3:])
        assert torch.equal(read["fc6.bias"][(slice(2, 4),)], torch.tensor([2.0, 3.0]))


def test_opening_a_checkpoint_that_is_not_there_gives_none(two: Checkpoints) -> None:
    with two.open("step-00000009") as read:
        assert read is None


def test_equal_states_are_equal_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save(Checkpoints(tmp_path / name), 3)
    for file in ("tensors.safetensors", "state.json"):
        assert (tmp_path / "a/step-00000003" / file).read_bytes() == (tmp_path / "b/step-00000003" / file).read_bytes()


def test_only_the_newest_stay(two: Checkpoints) -> None:
    save(two, 3)
    assert sorted(path.name for path in two.folder.iterdir()) == ["step-00000002", "step-00000003"]


@pytest.mark.parametrize(
    "kind", ["torn", "flipped", "flipped in state", "missing", "no state", "empty state", "state of another"]
)
def test_a_damaged_one_is_set_aside_and_the_one_before_is_used(two: Checkpoints, kind: str) -> None:
    folder = two.folder / "step-00000002"
    file, state = folder / "tensors.safetensors", folder / "state.json"
    content = file.read_bytes()
    if kind == "torn":
        file.write_bytes(content[:-7])
    elif kind == "flipped":
        file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    elif kind == "flipped in state":
        text = state.read_text()
        assert '"step": 2' in text
        state.write_text(text.replace('"step": 2', '"step": 3'))
    elif kind == "missing":
        file.unlink()
    elif kind == "no state":
        state.unlink()
    elif kind == "empty state":
        state.write_text("")
    else:
        state.write_text('{"step": 2}')
    found = two.newest()
    assert found is not None
    assert found[0] == "step-00000001"
    assert two.set_aside[0].startswith("damaged-0-step-00000002 (")
    assert (two.folder / "damaged-0-step-00000002").exists()
    save(two, 2)  # its name is free again
    assert Checkpoints(two.folder).newest() == ("step-00000002", {"step": 2, "loss": 0.1})


@pytest.mark.parametrize(
    ("file", "target", "number"),
    [
        ("tensors.safetensors", "/proc/self/mem", errno.EIO),  # its first page cannot be read
        ("state.json", "state.json", errno.ELOOP),
    ],
)
def test_a_checkpoint_that_cannot_be_read_now_is_not_set_aside(two: Checkpoints, file: str, target: str, number: int) -> None:
    path = two.folder / "step-00000002" / file
    path.unlink()
    path.symlink_to(target)
    with pytest.raises(OSError) as caught:
        two.newest()
    assert caught.value.errno == number
    assert sorted(folder.name for folder in two.folder.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_process_without_free_file_descriptors_sets_nothing_aside_and_does_not_begin_again(two: Checkpoints) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        with pytest.raises(OSError) as caught:
            two.newest()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert caught.value.errno == errno.EMFILE
    assert two.newest() == ("step-00000002", {"step": 2, "loss": 0.1})


def test_only_what_is_newer_than_another_ranks_is_looked_for(two: Checkpoints) -> None:
    assert two.newest(after="step-00000001") == ("step-00000002", {"step": 2, "loss": 0.1})
    assert two.newest(after="step-00000002") is None
    (two.folder / "step-00000002" / "state.json").unlink()
    assert two.newest(after="step-00000001") is None
    assert two.newest() == ("step-00000001", {"step": 1, "loss": 0.1})


def test_all_damaged_stops_with_their_list_and_never_begins_again(two: Checkpoints) -> None:
    for folder in two.folder.glob("step-*"):
        (folder / "state.json").unlink()
    with pytest.raises(
        DataError, match=r"every checkpoint is damaged: .*step-00000002.*; .*step-00000001.*; remove the folder"
    ):
        two.newest()


def test_what_a_killed_writer_left_is_cleaned_up(two: Checkpoints) -> None:
    program = (
        "import os, sys\nfrom pathlib import Path\nfrom alexnet.files.atomic import atomic_folder\n"
        "with atomic_folder(Path(sys.argv[1])) as part:\n    (part / 'tensors.safetensors').touch()\n    os._exit(9)"
    )
    killed = subprocess.run([sys.executable, "-c", program, str(two.folder / "step-00000003")], check=False)
    assert killed.returncode == 9
    assert len(list(two.folder.iterdir())) == 3
    assert two.newest() == ("step-00000002", {"step": 2, "loss": 0.1})
    assert sorted(path.name for path in two.folder.iterdir()) == ["step-00000001", "step-00000002"]


def test_a_second_trainer_is_refused_at_once_with_the_holders_process(two: Checkpoints) -> None:
    message = rf"run: another trainer: process {os.getpid()} has held .* for 0 s without progress; end it and run again"
    with two.lock(), pytest.raises(Busy, match=message):
        Checkpoints(two.folder).lock().__enter__()
    with Checkpoints(two.folder).lock(patience_seconds=1.0):
        pass


def test_a_lock_outlasts_the_folder_that_its_holder_removes(two: Checkpoints) -> None:
    with two.lock():
        two.remove()
        with pytest.raises(Busy, match="another trainer"):
            Checkpoints(two.folder).lock().__enter__()
        save(two, 3)
    assert [path.name for path in two.folder.parent.iterdir()] == ["run"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_says_so_and_leaves_the_older_ones_whole(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk / "run")
    save(checkpoints, 1)
    with pytest.raises(OSError, match="No space left on device") as caught:
        checkpoints.save(2, {"fc6.weight": torch.zeros(1 << 16)}, {"step": 2})
    assert caught.value.errno == errno.ENOSPC
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-00000001"]
    assert Checkpoints(checkpoints.folder).newest() is not None


@pytest.mark.parametrize(
    "text", ["[" * 9000 + "]" * 9000, '{"sha256": NaN}', '{"step": 1, "step": 2, "sha256": ""}', "[]", "null"]
)
def test_a_state_that_json_does_not_have_is_damaged(two: Checkpoints, text: str) -> None:
    (two.folder / "step-00000002/state.json").write_text(text)
    found = two.newest()
    assert found
    assert found[0] == "step-00000001"
    assert "state.json is damaged" in two.set_aside[0]


def test_a_pipe_is_no_checkpoint(two: Checkpoints) -> None:
    path = two.folder / "step-00000002/tensors.safetensors"
    path.unlink()
    os.mkfifo(path)
    found = two.newest()
    assert found
    assert found[0] == "step-00000001"
