"""The code that each stage of dvc.yaml depends on: which of the modules it imports can change its result, and which cannot.

A module missing from deps is a stale model; one too many is 90 epochs for a changed log line.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import grimp

_PACKAGES = ("alexnet", "pipelines")
_CONFIG = "pipelines.config"  # imports every stage's config; what a stage takes from one is in its `params`

# Folders and modules that no stage needs to list, by why they cannot change its result.
CANNOT_CHANGE_A_RESULT = {
    "alexnet/errors.py": "exceptions end a stage; they make nothing",
    "alexnet/config.py": "reads configs strictly; what they hold is in the stage's params or its data",
    "pipelines/config": "reads params.yaml; the numbers that a stage takes from it are its params",
    "alexnet/files": "writes whole files, or none, and locks them; what is in them comes from elsewhere",
    "pipelines/registry": "fetches releases and checks them by the digests that name them; publish makes them, and lists it",
    "pipelines/storage": "moves objects between the bucket and memory, and checks them",
    "alexnet/shards/download.py": "moves shards",
    "alexnet/shards/verify.py": "compares shards with the manifest's digests",
    "alexnet/shards/cache.py": "keeps verified shards on the disk",
    "alexnet/shards/manifest.py": "reads the manifest, which is in the stage's data",
    "pipelines/runtime": "prints, finds places and devices, starts threads and processes, names errors",
}


def program(stage: dict[str, Any]) -> str:
    """The module that a stage runs.

    Raises:
        ValueError: its command runs none.
    """
    found = re.search(r"python -m (\S+)", stage["cmd"])
    if not found:
        raise ValueError(f"dvc.yaml: `{stage['cmd']}` starts no module; write `python -m pipelines.STAGE ...`")
    return found[1]


def imported(module: str) -> set[str]:
    """The files of a module and of all modules of ours that it imports, however far down, but for what the configs import."""
    graph = _graph()
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            if not _in(name, _CONFIG, "."):
                waiting.extend(graph.find_modules_directly_imported_by(name))
    return {_file_of(name) for name in seen}


def code_deps(stage: dict[str, Any]) -> set[str]:
    """The folders and modules of ours among a stage's deps."""
    return {dep for dep in stage.get("deps", []) if dep.split("/")[0] in _PACKAGES}


def missing(stage: dict[str, Any]) -> list[str]:
    """The modules that a stage imports and that neither its deps nor CANNOT_CHANGE_A_RESULT cover."""
    covered = {*code_deps(stage), *CANNOT_CHANGE_A_RESULT}
    return sorted(file for file in imported(program(stage)) if not any(_in(file, path, "/") for path in covered))


def needless(stage: dict[str, Any]) -> list[str]:
    """The folders and modules among a stage's deps of which it imports nothing, or that another of its deps covers."""
    files = imported(program(stage))
    deps = code_deps(stage)
    return sorted(
        dep
        for dep in deps
        if not any(_in(file, dep, "/") for file in files) or any(dep != other and _in(dep, other, "/") for other in deps)
    )


def _in(name: str, parent: str, separator: str) -> bool:
    return name == parent or name.startswith(parent + separator)


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph(*_PACKAGES, cache_dir=None)


def _file_of(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py") if path.is_dir() else f"{path}.py"
