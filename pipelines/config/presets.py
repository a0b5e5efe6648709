"""Presets: whole runs as partial trees, laid over params.yaml leaf by leaf, whose comments stay."""

import io
import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from alexnet.config import build
from alexnet.errors import ParamsError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.files.strict import read_bytes
from pipelines.config import params, tree


def use(name: str, file: Path = params.FILE, folder: Path = params.PRESETS) -> list[str]:
    """Lays the shipped preset and then another over params.yaml; the leaves that changed, as `path: before -> after`.

    What another preset had changed gets its shipped value back; a leaf that no preset has keeps the user's value.

    Raises:
        ParamsError: no such preset, or it does not fit params.yaml. Nothing is written then.
    """
    before = tree.read(file)
    document = _round_trip().load(read_bytes(file))
    for preset in dict.fromkeys([params.SHIPPED, name]):
        path = params.preset_file(preset, folder)
        tree.overlay(before, tree.read(path), f"presets.{preset}")  # refuses a leaf that params.yaml does not have
        _lay(document, _round_trip().load(read_bytes(path)))
    text = io.StringIO()
    _round_trip().dump(document, text)
    after = YAML(typ="safe", pure=True).load(text.getvalue())
    old, new = leaves(before), leaves(after)
    changed = [f"{key}: {json.dumps(old.get(key))} -> {json.dumps(new[key])}" for key in new if old.get(key) != new[key]]
    if changed:
        after.pop("variants", None)
        build(params.Params, params.current(after), str(file))
        atomic_write_bytes(file, text.getvalue().encode())
    return changed


@dataclass(frozen=True)
class About:
    """The comment at the head of a preset: what it is, the command that runs it, and what to expect of it."""

    description: str
    run: str
    expect: str


def about(name: str, folder: Path = params.PRESETS) -> About:
    """What a preset's file says of itself.

    Raises:
        ParamsError: no such preset, or its comment lacks a line `# Run: ` or `# Expect: `.
    """
    path = params.preset_file(name, folder)
    comment = itertools.takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines())
    parts = re.fullmatch("(.*) Run: (.*) Expect: (.*)", " ".join(line.lstrip("# ") for line in comment))
    if not parts:
        raise ParamsError(f"{path}: its first comment must have lines that start with `# Run: ` and `# Expect: `")
    return About(*parts.groups())


def chosen(file: Path = params.FILE, folder: Path = params.PRESETS) -> str | None:
    """The preset that params.yaml is as by `use`; None if a number of its own differs."""
    base = tree.read(file)
    shipped = tree.overlay(base, tree.read(params.preset_file(params.SHIPPED, folder)), "presets")
    for path in sorted(folder.glob("*.yaml")):
        if tree.overlay(shipped, tree.read(path), "presets") == base:
            return path.stem
    return None


def leaves(change: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The leaves of a tree by their paths; a list is a leaf, and so is an empty mapping."""
    found: dict[str, Any] = {}
    for key, value in change.items():
        under = f"{path}.{key}" if path else key
        found |= leaves(value, under) if isinstance(value, dict) and value else {under: value}
    return found


def _lay(base: Any, change: Any) -> None:
    """Replaces the leaves of base by those of change, in place; one that is equal already keeps its notation."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _lay(base[key], value)
        elif base[key] != value or type(base[key]) is not type(value):
            base[key] = _plain(value)


def _plain(value: Any) -> Any:
    """The same without comments and style of the preset's file; numbers keep their notation."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _round_trip() -> YAML:
    """A reader and writer that keeps comments and quotes, and otherwise writes as DVC does."""
    yaml = YAML(typ="rt")
    yaml.preserve_quotes = True
    yaml.width = 1 << 16
    return yaml
