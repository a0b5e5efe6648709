"""Tensor files: what the disk says reaches the caller under its own number."""

import errno
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from alexnet.files.tensors import write_tensors


def test_tensors_come_back_whatever_their_layout_in_memory(tmp_path: Path) -> None:
    tensors = {"a": torch.arange(6.0).view(2, 3).t(), "b": torch.ones(1, 2, 3, 4).contiguous(memory_format=torch.channels_last)}
    write_tensors(tensors, tmp_path / "t.safetensors")
    back = load_file(tmp_path / "t.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("text", ["Error while serializing: I/O error: No space left on device (os error 28)"])
def test_a_full_disk_is_an_error_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    def fail(*_: object) -> None:
        raise SafetensorError(text)

    monkeypatch.setattr("alexnet.files.tensors.save_file", fail)
    with pytest.raises(OSError, match="No space left on device") as error:
        write_tensors({}, tmp_path / "t.safetensors")
    assert error.value.errno == errno.ENOSPC
    assert error.value.filename == str(tmp_path / "t.safetensors")


def test_any_other_error_of_the_library_stays_what_it_is(tmp_path: Path) -> None:
    shared = torch.zeros(4)
    with pytest.raises((SafetensorError, RuntimeError), match="share memory"):
        write_tensors({"a": shared, "b": shared}, tmp_path / "t.safetensors")
