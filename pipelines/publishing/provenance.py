"""Where a release came from: its commit, files that differed from it, and dvc.lock, which names what stages read and made."""

import hashlib
import io
import json
import re
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.errors import DataError
from alexnet.files.strict import open_regular, shown
from pipelines.config.tree import Tree

NAME = "provenance.json"
_COMMIT = re.compile("[0-9a-f]{40}|[0-9a-f]{64}")
_CODE = ("alexnet/", "pipelines/")
_OUTPUTS = {  # a stage's output by its path in a release
    "shards.json": "artifacts/manifest.json",
    "source.json": "artifacts/source.json",
    **{
        name: f"artifacts/{name}"
        for name in ("features.parquet", "history.csv", "index.parquet", "metrics.json", "pixels.npz", "training.json")
    },
    "validation.json": "artifacts/validation.json",
}
_MODEL = ("config.json", "model.safetensors")


@dataclass(frozen=True)
class Provenance:
    """provenance.json. commit: that was checked out, null where git names none. changed: the tracked files that differ from it.

    said: what git said where it names none, without the place of this checkout.
    """

    commit: str | None
    changed: tuple[str, ...]
    said: str = ""

    def __str__(self) -> str:
        if self.commit is None:
            return f"unknown; git said: {self.said}" if self.said else "not made in a git checkout"
        return f"{self.commit} with changes in {', '.join(self.changed)}" if self.changed else self.commit


def of_checkout() -> Provenance:
    """Of the current folder. dvc.lock does not count: every run rewrites it, and the release has a copy."""
    try:
        changed = _git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no", "--", ".", ":!dvc.lock").decode()
        return Provenance(
            _git("rev-parse", "HEAD").decode().strip(), tuple(sorted(line[3:] for line in changed.split("\0") if line))
        )
    except (OSError, subprocess.SubprocessError) as error:
        return Provenance(None, (), said(error))


def said(error: OSError | subprocess.SubprocessError) -> str:
    """What git said, or why it did not run, without the place of this checkout."""
    text = error.stderr.decode(errors="replace") if isinstance(error, subprocess.CalledProcessError) else str(error)
    return " ".join(text.replace(str(Path.cwd()), ".").split())[:200]


def changed_data(folder: Path, lock: Tree) -> list[str]:
    """The files of a release that are not the outputs of the stages in its dvc.lock."""
    made = {out["path"]: out["md5"] for stage in lock["stages"].values() for out in stage.get("outs", [])}
    found = {
        output: (path, _md5((folder / path).read_bytes())) for path, output in _OUTPUTS.items() if (folder / path).is_file()
    }
    found["artifacts/model"] = ("model.safetensors", _md5_of_folder({name: _read(folder / name) for name in _MODEL}))
    return sorted(path for output, (path, md5) in found.items() if output in made and made[output] != md5)


def _read(path: Path) -> bytes:
    with open_regular(path) as file:
        return file.read()


def changed_params(params: Tree, lock: Tree) -> list[str]:
    """The keys of params.yaml that have other values than a stage in dvc.lock was run with."""
    used = [
        (key, value)
        for stage in lock["stages"].values()
        for key, value in stage.get("params", {}).get("params.yaml", {}).items()
    ]
    return sorted({key for key, value in used if _at(params, key) != value})


def changed_code(commit: str, lock: Tree) -> list[str]:
    """The files and folders of code that a stage in dvc.lock was run with and that are others in the commit.

    Raises:
        DataError: that is no commit, or the lock names no code.
        OSError, subprocess.SubprocessError: this folder has no such commit.
    """
    if not _COMMIT.fullmatch(commit):  # git would take it for an option
        raise DataError(f"{NAME}: commit: must be 40 or 64 digits 0-9a-f, got {shown(commit)}")
    deps = {
        dep["path"]: dep["md5"]
        for stage in lock["stages"].values()
        for dep in stage.get("deps", [])
        if dep["path"].startswith(_CODE)
    }
    files = dict(_files_of(commit))
    if not deps:
        raise DataError("dvc.lock names no code that a stage ran")
    return sorted(path for path, md5 in deps.items() if _md5_of(path, files) != md5)


def _files_of(commit: str) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(
        fileobj=io.BytesIO(_git("archive", "--format=tar", commit, *(each.rstrip("/") for each in _CODE)))
    ) as tar:
        for member in filter(tarfile.TarInfo.isfile, tar):
            content = tar.extractfile(member)
            assert content is not None
            yield member.name, content.read()


def _md5_of(path: str, files: Mapping[str, bytes]) -> str | None:
    if path in files:
        return _md5(files[path])
    return _md5_of_folder({name.removeprefix(f"{path}/"): body for name, body in files.items() if name.startswith(f"{path}/")})


def _md5_of_folder(files: Mapping[str, bytes]) -> str:
    """As DVC names a folder: by the digest of the list of its files."""
    listed = [{"md5": _md5(files[path]), "relpath": path} for path in sorted(files, key=lambda path: path.split("/"))]
    return f"{_md5(json.dumps(listed, sort_keys=True).encode())}.dir"


def _md5(body: bytes) -> str:
    return hashlib.md5(body, usedforsecurity=False).hexdigest()


def _at(tree: Tree, key: str) -> Any:
    value: Any = tree
    for part in key.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _git(*arguments: str) -> bytes:
    # The checkout may be another user's; git's commands here only read.
    return subprocess.run(["git", "-c", "safe.directory=*", *arguments], capture_output=True, check=True, timeout=60).stdout
