"""Plain trees (from YAML or JSON) as frozen dataclasses, checked to the last leaf."""

import dataclasses
import json
import math
import re
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, Union

from alexnet.errors import DataError, ParamsError
from alexnet.files.strict import loads, read_bytes, shown

T = TypeVar("T")


def build(kind: type[T], tree: object, path: str) -> T:
    """tree as an instance of `kind`, checked to the last leaf; errors name the leaf's path.

    Raises:
        ParamsError: an unknown or missing key, a wrong type, or a value that the dataclass itself refuses.
    """
    return typing.cast("T", _value(kind, tree, path))


def read_json(kind: type[T], path: Path, advice: str, added: Mapping[str, object] | None = None) -> T:
    """The JSON file as an instance of `kind`, see `parse_json`. Raises DataError also when there is no such file."""
    try:
        data = read_bytes(path)
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; {advice}") from None
    return parse_json(kind, data, str(path), advice, added)


def parse_json(kind: type[T], data: bytes, where: str, advice: str, added: Mapping[str, object] | None = None) -> T:
    """JSON as an instance of `kind`, checked as by `build`. added: keys that it may lack, and what they then are.

    Raises:
        DataError: not JSON, or not of this form. The message starts with `where` and ends with the advice.
    """
    try:
        tree = loads(data)
        return build(kind, {**added, **tree} if added and isinstance(tree, dict) else tree, where)
    except ParamsError as error:
        raise DataError(f"{error}; {advice}") from None
    except ValueError as error:
        raise DataError(f"{where}: damaged: {error}; {advice}") from None


def to_json(value: Any) -> bytes:
    """A dataclass as indented JSON with sorted keys: equal values are equal bytes."""
    return (json.dumps(dataclasses.asdict(value), indent=1, sort_keys=True) + "\n").encode()


def first_difference(a: Any, b: Any, path: str = "") -> tuple[str, Any, Any] | None:
    """The path of the first leaf in which two trees of mappings differ, and both its values; None where they are equal."""
    if not (isinstance(a, dict) and isinstance(b, dict)):
        return None if a == b else (path.removesuffix("."), a, b)
    differences = (first_difference(a.get(name), b.get(name), f"{path}{name}.") for name in sorted(a.keys() | b.keys()))
    return next((found for found in differences if found), None)


def _value(kind: Any, value: object, path: str) -> object:
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, value, path)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        (inner,) = [arg for arg in args if arg is not type(None)]
        return _value(inner, value, path)
    if origin is Literal:
        if value not in args or type(value) not in {type(arg) for arg in args}:
            raise ParamsError(f"{path}: must be one of {', '.join(map(str, args))}, got {shown(value)}")
        return value
    if origin is tuple:
        if not isinstance(value, list):
            raise ParamsError(f"{path}: must be a list, got {shown(value)}")
        return tuple(_value(args[0], item, f"{path}[{i}]") for i, item in enumerate(value))
    if origin is Annotated:
        return _mapping(typing.get_args(args[0]), value, path, args[1])
    if origin in (dict, Mapping):
        return _mapping(args, value, path, {})
    return _leaf(kind, value, path)


def _mapping(kinds: Sequence[Any], value: object, path: str, own: Mapping[Any, Any]) -> dict[Any, Any]:
    """kinds: of the keys and of the values. own: kinds of the values of some keys, where they are others."""
    if not isinstance(value, dict):
        raise ParamsError(f"{path}: must be a mapping, got {shown(value)}")
    keys = {_key(kinds[0], name): name for name in value}
    return {
        _value(kinds[0], key, path): _value(own.get(key, kinds[1]), value[name], f"{path}.{_in_a_path(name)}")
        for key, name in keys.items()
    }


def _key(kind: Any, name: Any) -> Any:
    """JSON's keys are text; a number only as Python writes it, so that no two keys are the same number."""
    return int(name) if kind is int and _NUMBER.fullmatch(str(name)) else name


def _in_a_path(name: object) -> str:
    """A key as an error shows it, see `shown`."""
    return shown(name).removeprefix("'").removesuffix("'")


def _leaf(kind: type, value: object, path: str) -> object:
    if type(value) is int and kind in (int, float):
        fits = abs(value) <= _LARGEST
        value = kind(value) if fits else value
    else:
        fits = type(value) is kind and not (type(value) is float and not math.isfinite(value))
    if not fits:
        raise ParamsError(f"{path}: must be {_NAMES.get(kind, kind.__name__)}, got {shown(value)}")
    return value


_LARGEST = 1 << 63
_LONGEST = 1000  # characters of what a dataclass refuses
_NUMBER = re.compile("0|[1-9][0-9]{0,17}")
_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}


def _dataclass(kind: type, tree: object, path: str) -> object:
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: must be a mapping, got {shown(tree)}")
    hints = typing.get_type_hints(kind, include_extras=True)
    names = [field.name for field in dataclasses.fields(kind)]
    if unknown := [str(name) for name in tree if name not in names]:
        raise ParamsError(f"{path}: unknown {shown(', '.join(unknown))[1:-1]}; allowed: {', '.join(names)}")
    if missing := [name for name in names if name not in tree]:
        raise ParamsError(f"{path}: missing {', '.join(missing)}")
    fields = {name: _value(hints[name], tree[name], _under(path, name)) for name in names}
    try:
        return kind(**fields)
    except ValueError as error:
        text = str(error)  # with the value, which may be of any length
        raise ParamsError(_under(path, text if len(text) <= _LONGEST else f"{text[:_LONGEST]}...")) from None


def _under(path: str, name: str) -> str:
    """The leaves of the whole file go by their own path: `train.lr`, not `params.yaml.train.lr`."""
    return name if path.endswith(".yaml") else f"{path}.{name}"
