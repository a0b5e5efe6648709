"""Checkpoints of a training run: whole and verified, or absent. One layout, the full tensors, for every form of the network.

A checkpoint is a folder `step-00001234` of `tensors.safetensors` (weights, and velocities as `velocity/NAME`) and `state.json`,
which holds the SHA-256 of both. It is written under a temporary name, synced, then renamed.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from alexnet.errors import DataError
from alexnet.files import tensors as tensorfile
from alexnet.files.locks import Busy, flock

_TENSORS = "tensors.safetensors"
_STATE = "state.json"


@dataclass(frozen=True)
class Checkpoint:
    """Full tensors by name, and the state of the loop around them (plain JSON)."""

    tensors: dict[str, Tensor]
    state: dict[str, Any]


class Checkpoints:
    """The checkpoints of one run, in one folder.

    Args:
        folder: made when it is not there.
        keep: how many of the newest stay; at least 2, since the newest may be found damaged.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        if keep < 2:
            raise ValueError(f"keep: must be at least 2, since the newest may be damaged, got {keep}")
        self.folder, self.keep = folder, keep
        self.set_aside: list[str] = []

    @contextmanager
    def lock(self, patience_seconds: float = 0.0) -> Iterator[None]:
        """Holds the folder for this process. Raises DataError when another trainer has it, and still has it after so long."""
        with ExitStack() as held:
            while True:
                self.folder.mkdir(parents=True, exist_ok=True)
                try:
                    held.enter_context(flock(self.folder / "lock", patience_seconds, "checkpoints"))
                    break
                except FileNotFoundError:
                    continue  # its holder has just removed the folder
                except Busy as busy:
                    raise DataError(
                        f"{self.folder}: another trainer (process {busy.holder}) uses it; wait for it, or stop it"
                    ) from None
            yield

    def save(self, step: int, checkpoint: Checkpoint) -> Path:
        """Writes one, then removes all but the newest `keep`."""
        final = self.folder / f"step-{step:08d}"
        self._clean()
        if final.exists():
            return final
        temporary = self.folder / f".tmp-{final.name}"
        temporary.mkdir(parents=True)
        try:
            tensorfile.write(checkpoint.tensors, temporary / _TENSORS)
            digest = _digest(temporary / _TENSORS, checkpoint.state)
            (temporary / _STATE).write_text(json.dumps({**checkpoint.state, "sha256": digest}, sort_keys=True))
            for path in (temporary / _TENSORS, temporary / _STATE, temporary):
                _sync(path)
            temporary.rename(final)
            _sync(self.folder)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        for old in self._steps()[: -self.keep]:
            shutil.rmtree(old, ignore_errors=True)
        return final

    def newest(self, after: str = "") -> tuple[str, dict[str, Any]] | None:
        """Name and state of the newest that is whole, or None where there is none with a name after the given one.

        Damaged ones are set aside, under names kept in `set_aside`.

        Raises:
            DataError: there are checkpoints and all of them are damaged.
        """
        self._clean()
        steps = [folder for folder in self._steps() if folder.name > after]
        for folder in reversed(steps):
            try:
                return folder.name, _verified(folder)
            except Exception as error:  # noqa: BLE001 - whatever a damaged file makes its reader say
                with suppress(FileNotFoundError):  # another rank of this machine has set it aside
                    self.set_aside.append(f"{self._aside(folder).name} ({error})")
        if steps and not after:
            raise DataError(
                f"{self.folder}: every checkpoint is damaged: {'; '.join(self.set_aside)}; remove the folder to begin again"
            )
        return None

    def last(self) -> str | None:
        """Name of the newest, whole or not."""
        steps = self._steps()
        return steps[-1].name if steps else None

    @contextmanager
    def open(self, name: str) -> Iterator[Mapping[str, Any] | None]:
        """The tensors of a checkpoint that `newest` has verified, read by slices; None where this machine has no such file."""
        try:
            file = safe_open(self.folder / name / _TENSORS, framework="pt")
        except FileNotFoundError:
            yield None
            return
        with file:
            yield _Tensors(file)

    def remove(self) -> None:
        """Removes the whole folder, when its model is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[Path]:
        return sorted(self.folder.glob("step-*"))

    def _clean(self) -> None:
        for left in self.folder.glob(".tmp-*"):
            shutil.rmtree(left, ignore_errors=True)

    def _aside(self, folder: Path) -> Path:
        number = 0
        while (aside := self.folder / f"damaged-{number}-{folder.name}").exists():
            number += 1
        return folder.rename(aside)


class _Tensors(Mapping[str, Any]):
    """Tensors in a file: `tensors[name][slices]` reads those slices only."""

    def __init__(self, file: Any) -> None:
        self._file, self._names = file, sorted(file.keys())

    def __getitem__(self, name: str) -> Any:
        return self._file.get_slice(name)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)


def _verified(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint that is as it was written."""
    state: dict[str, Any] = json.loads((folder / _STATE).read_text())
    expected = state.pop("sha256")
    if (found := _digest(folder / _TENSORS, state)) != expected:
        raise DataError(f"sha256 is {found}, expected {expected}")
    return state


def _digest(tensors: Path, state: dict[str, Any]) -> str:
    """Of the file of tensors, then the state."""
    with tensors.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(state, sort_keys=True).encode())
    return digest.hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
