"""The code each stage depends on, written into dvc.yaml: every module of ours that its program imports, however far down.

    python -m tools.dvc_deps

A module missing from deps is a stale model. One too many is a needless retraining, so the search ends at
`pipelines.config.params`: it imports every stage's config in order to check the whole file, and what a stage takes from a
config is in its `params`. A file beside a module, of its name (`cpu.cpp`), is code too.
"""

import re
from pathlib import Path
from typing import Any

import grimp
import yaml

DVC = Path("dvc.yaml")
_PACKAGES = ("alexnet", "pipelines")
_LAST = "pipelines.config.params"
_CODE_BESIDE = (".css", ".cpp")  # read by the code


def program(stage: dict[str, Any]) -> str:
    """The module that a stage runs."""
    found = re.search(r"python -m (\S+)", stage["cmd"])
    if not found:
        raise ValueError(f"{DVC}: `{stage['cmd']}` starts no module; write `python -m pipelines.STAGE ...`")
    return found[1]


def code_deps(module: str) -> list[str]:
    """The files of a program and of all that it imports of ours, sorted."""
    graph = _graph()
    seen: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        if name != _LAST:
            waiting.extend(graph.find_modules_directly_imported_by(name))
    files = [Path(_file_of(name)) for name in seen]
    beside = [path.with_suffix(suffix) for path in files for suffix in _CODE_BESIDE]
    return sorted(str(path) for path in [*files, *beside] if path in files or path.exists())


def rewrite(text: str) -> str:
    """dvc.yaml with the code among its deps brought up to date; data, other files, comments and layout stay as they are."""
    for name, stage in yaml.safe_load(text)["stages"].items():
        old = stage.get("deps", [])
        code = code_deps(program(stage))
        data = [dep for dep in old if dep.split("/")[0] not in _PACKAGES]
        block = "".join(f"      - {dep}\n" for dep in [*data, *code])
        head = rf"^  {re.escape(name)}:\n(?:    .*\n|\n)*?"
        there = re.search(rf"{head}    deps:(?P<old> .*\n|\n(?:      .*\n)*)", text, re.MULTILINE)
        if "deps" in stage and there:
            text = f"{text[: there.start('old')]}\n{block}{text[there.end('old') :]}"
        elif after := re.search(rf"{head}(?=    (?:params|outs):)", text, re.MULTILINE):
            text = f"{text[: after.end()]}    deps:\n{block}{text[after.end() :]}"
    return text


_cached: list[grimp.ImportGraph] = []


def _graph() -> grimp.ImportGraph:
    if not _cached:
        _cached.append(grimp.build_graph(*_PACKAGES, cache_dir=None))
    return _cached[0]


def _file_of(module: str) -> str:
    path = Path(*module.split("."))
    return str(path / "__init__.py") if path.is_dir() else f"{path}.py"


if __name__ == "__main__":
    DVC.write_text(rewrite(DVC.read_text()))
