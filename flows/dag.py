"""The topological order of the stages, from their dependencies and outputs in dvc.yaml."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

FILE = Path("dvc.yaml")


def stages_for(target: str, file: Path = FILE) -> list[str]:
    """The stages that `target` depends on, in topological order, and `target` itself, last.

    Raises:
        ValueError: there is no such stage, or the dependencies have a cycle.
    """
    stages: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))["stages"]
    if target not in stages:
        raise ValueError(f"{file}: has no stage {target!r}; it has {', '.join(stages)}")
    producers = {path: name for name, stage in stages.items() for path in _paths(stage.get("outs", []))}
    depends_on: dict[str, set[str]] = {}
    waiting = [target]
    while waiting:
        name = waiting.pop()
        if name not in depends_on:
            depends_on[name] = {
                producers[out] for path in _paths(stages[name].get("deps", [])) for out in producers if _within(path, out)
            }
            waiting.extend(depends_on[name])
    order = {name: place for place, name in enumerate(stages)}
    sorter = TopologicalSorter(
        {name: sorted(depends_on[name], key=order.__getitem__) for name in sorted(depends_on, key=order.__getitem__)}
    )
    try:
        return list(sorter.static_order())
    except CycleError as error:
        raise ValueError(f"{file}: the stages depend on one another in a cycle: {' -> '.join(error.args[1])}") from None


def _paths(entries: list[Any]) -> list[str]:
    """The paths of deps or outs; an entry is a path, or a path with its options."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def _within(path: str, out: str) -> bool:
    """Whether a dependency is this output, or lies in it."""
    return PurePosixPath(path).is_relative_to(out)
