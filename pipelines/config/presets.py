"""Presets: whole runs as partial trees over params.yaml, laid over it leaf by leaf, with its comments kept."""

import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.representer import RoundTripRepresenter

from pipelines.config import params, tree

SHIPPED = "digits"  # has every leaf that any other preset changes, as shipped


def use(name: str, file: Path = params.FILE, folder: Path = params.PRESETS) -> list[str]:
    """Lays the shipped preset and then another over params.yaml; the leaves that changed, as `path: before -> after`.

    What another preset had changed is back as it was shipped; a leaf that no preset changes keeps what its owner gave it.

    Raises:
        ParamsError: no such preset, or it does not fit params.yaml. Nothing is written then.
    """
    files = [params.preset_file(each, folder) for each in dict.fromkeys([SHIPPED, name])]
    text = file.read_text()
    before, after = _load(text), _load(text)
    for each in files:
        tree.overlay(tree.read(file), tree.read(each), f"presets.{each.stem}")  # refuses a leaf that params.yaml does not have
        _lay(after, _load(each.read_text()))
    changed = _differences(before, after)
    if changed:
        whole = _dump(after)
        tree.build(params.Params, {key: value for key, value in _plain(whole).items() if key != "variants"}, str(file))
        part = file.with_name(f".{file.name}.part")
        part.write_text(whole)
        part.replace(file)
    return changed


def leaves(change: dict[str, Any], path: str = "") -> dict[str, Any]:
    """The leaves of a tree by their paths; a list is a leaf, and so is an empty mapping."""
    found: dict[str, Any] = {}
    for key, value in change.items():
        under = f"{path}.{key}" if path else key
        found |= leaves(value, under) if isinstance(value, dict) and value else {under: value}
    return found


def _lay(base: Any, change: Any) -> None:
    """Puts the leaves of change over base in place; one that is equal already is left as it is written."""
    for key, value in change.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _lay(base[key], value)
        elif base[key] != value or type(base[key]) is not type(value):
            _replace(base, key, value)


def _replace(base: Any, key: str, value: Any) -> None:
    """Sets a leaf on one line; the comment at the end of that line stays."""
    old, base[key] = base[key], _on_one_line(value)
    comment = getattr(getattr(old, "ca", None), "comment", None)
    if comment and hasattr(base[key], "ca"):
        base[key].ca.comment = comment


def _on_one_line(value: Any) -> Any:
    """The same without its comments; numbers stay as they were written."""
    if isinstance(value, dict):
        mapping = CommentedMap({key: _on_one_line(each) for key, each in value.items()})
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list):
        sequence = CommentedSeq([_on_one_line(each) for each in value])
        sequence.fa.set_flow_style()
        return sequence
    return value


def _differences(before: Any, after: Any) -> list[str]:
    old, new = leaves(before), leaves(after)
    return [f"{key}: {_words(old.get(key))} -> {_words(new[key])}" for key in new if old.get(key) != new[key]]


def _words(value: Any) -> str:
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = True
    writer.width = 1 << 16
    text = io.StringIO()
    writer.dump(_builtin(value), text)
    return text.getvalue().removesuffix("\n").removesuffix("\n...")


def _builtin(value: Any) -> Any:
    """The same without what keeps comments and style."""
    if isinstance(value, dict):
        return {str(key): _builtin(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_builtin(each) for each in value]
    return next((kind(value) for kind in (bool, int, float, str) if isinstance(value, kind)), value)


class _Representer(RoundTripRepresenter):
    """Writes null as null, not as nothing."""


_Representer.add_representer(type(None), lambda writer, _: writer.represent_scalar("tag:yaml.org,2002:null", "null"))


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.Representer = _Representer
    yaml.preserve_quotes = True
    yaml.width = 1 << 16  # no line is broken that its writer did not break
    return yaml


def _load(text: str) -> Any:
    return _yaml().load(text)


def _dump(value: Any) -> str:
    text = io.StringIO()
    _yaml().dump(value, text)
    return text.getvalue()


def _plain(text: str) -> dict[str, Any]:
    plain: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return plain
