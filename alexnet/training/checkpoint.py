"""Checkpoints of a training run. One layout, the full tensors, however the network is split over devices and processes.

A checkpoint is a folder `step-00001234` of `tensors.safetensors` (weights, and velocities as `velocity/NAME`) and `state.json`,
which holds the SHA-256 of both. It appears complete and synced, or not at all.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_folder
from alexnet.files.locks import flock
from alexnet.files.strict import loads, open_regular, read_bytes, reason, shown
from alexnet.files.tensors import write_tensors

_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_KEEP = 2  # the newest may be found damaged


class Checkpoints:
    """The checkpoints of one training run, in one folder, which is made when it is not there.

    set_aside: names and reasons of the damaged checkpoints that `newest` has found.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set_aside: list[str] = []

    def lock(self, patience_seconds: float = 0.0) -> AbstractContextManager[None]:
        """Holds the folder for this process. Raises Busy when another process still holds it after `patience_seconds`."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        return flock(self.folder.with_name(f"{self.folder.name}.lock"), patience_seconds, f"{self.folder}: another trainer")

    def save(self, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> str:
        """Writes full weights and velocities, and the loop's state of JSON's types; removes all but the newest two checkpoints.

        Returns the checkpoint's name.
        """
        folder = self.folder / f"step-{step:08d}"
        self._remove_temporary()
        if not folder.exists():
            with atomic_folder(folder) as part:
                write_tensors(tensors, part / _TENSORS)
                digest = _digest(part / _TENSORS, state)
                (part / _STATE).write_text(json.dumps({**state, "sha256": digest}, sort_keys=True), encoding="utf-8")
            for old in self._steps()[:-_KEEP]:
                shutil.rmtree(self.folder / old, ignore_errors=True)
        return folder.name

    def newest(self, after: str = "") -> tuple[str, dict[str, Any]] | None:
        """Name and state of the newest undamaged checkpoint; None where there is none with a name greater than `after`.

        Damaged ones are renamed to `damaged-NUMBER-NAME` and added to `set_aside`.

        Raises:
            DataError: there are checkpoints and all of them are damaged.
            OSError: a checkpoint cannot be read now, which says nothing about what is in it.
        """
        self._remove_temporary()
        steps = [name for name in self._steps() if name > after]
        for name in reversed(steps):
            try:
                return name, _read_state(self.folder / name)
            except DataError as error:
                with suppress(FileNotFoundError):  # another rank of this machine has set it aside
                    self.set_aside.append(f"{self._rename_damaged(name)} ({error})")
        if steps and not after:
            raise DataError(
                f"{self.folder}: every checkpoint is damaged: {'; '.join(self.set_aside)}; remove the folder to begin again"
            )
        return None

    def last(self) -> str | None:
        """Name of the newest, damaged or not."""
        return next(reversed(self._steps()), None)

    @contextmanager
    def open(self, name: str) -> Iterator[Mapping[str, Any] | None]:
        """The tensors of a checkpoint that `newest` has verified; None where this machine has no such file.

        Indexing one by slices reads these slices only.
        """
        try:
            file: Any = safe_open(self.folder / name / _TENSORS, framework="pt")
        except FileNotFoundError:
            yield None
            return
        with file:
            yield {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118 - it is no dict

    def remove(self) -> None:
        """Removes the folder with all checkpoints."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _steps(self) -> list[str]:
        with suppress(FileNotFoundError):  # any other error is raised: Path.glob would take a forbidden folder for an empty one
            return sorted(path.name for path in self.folder.iterdir() if path.name.startswith("step-"))
        return []

    def _remove_temporary(self) -> None:
        """Removes what killed writers left."""
        for path in self.folder.glob(".step-*"):
            shutil.rmtree(path, ignore_errors=True)

    def _rename_damaged(self, name: str) -> str:
        number = 0
        while (damaged := self.folder / f"damaged-{number}-{name}").exists():
            number += 1
        return (self.folder / name).rename(damaged).name


def _read_state(folder: Path) -> dict[str, Any]:
    """The state of a checkpoint. Raises DataError when it, or the file of tensors, is not as it was written."""
    try:
        state: dict[str, Any] = loads(read_bytes(folder / _STATE))
        expected, found = state.pop("sha256"), _digest(folder / _TENSORS, state)
    except FileNotFoundError as error:
        raise DataError(f"{Path(error.filename).name} is missing") from None
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"{_STATE} is damaged: {reason(error)}") from None
    if found != expected:
        raise DataError(f"sha256 is {found}, expected {shown(expected)}")
    return state


def _digest(tensors: Path, state: Mapping[str, Any]) -> str:
    with open_regular(tensors) as file:
        digest = hashlib.file_digest(file, "sha256")
    digest.update(json.dumps(state, sort_keys=True).encode())
    return digest.hexdigest()
