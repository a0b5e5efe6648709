"""The order of the stages, read from dvc.yaml, which alone says what needs what."""

from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

FILE = Path("dvc.yaml")


def stages_for(target: str, file: Path = FILE) -> list[str]:
    """The stages that `target` needs, in an order in which they can run, and `target` itself, last.

    Raises:
        ValueError: there is no such stage, or the stages need one another.
    """
    stages: dict[str, Any] = yaml.safe_load(file.read_text())["stages"]
    if target not in stages:
        raise ValueError(f"{file}: has no stage {target!r}; it has {', '.join(stages)}")
    makers = {path: name for name, stage in stages.items() for path in _paths(stage.get("outs", []))}
    needs: dict[str, set[str]] = {}
    waiting = [target]
    while waiting:
        name = waiting.pop()
        if name not in needs:
            needs[name] = {
                makers[made] for path in _paths(stages[name].get("deps", [])) for made in makers if _within(path, made)
            }
            waiting.extend(needs[name])
    order = {name: place for place, name in enumerate(stages)}
    sorter = TopologicalSorter(
        {name: sorted(needs[name], key=order.__getitem__) for name in sorted(needs, key=order.__getitem__)}
    )
    try:
        return list(sorter.static_order())
    except CycleError as error:
        raise ValueError(f"{file}: these stages need one another: {' -> '.join(error.args[1])}") from None


def _paths(entries: list[Any]) -> list[str]:
    """The paths of deps or outs; an entry is a path, or a path with its options."""
    return [entry if isinstance(entry, str) else next(iter(entry)) for entry in entries]


def _within(path: str, made: str) -> bool:
    """Whether a dependency is an output, or lies in one."""
    return PurePosixPath(path).is_relative_to(made)
