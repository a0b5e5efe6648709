"""Parameters as a tree: read strictly from YAML and laid over one another."""

import copy
import functools
import math
import re
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from alexnet.errors import DataError, ParamsError
from alexnet.files.strict import read_bytes

Tree = dict[str, Any]
_MAX_BYTES = 1 << 20  # of a file; params.yaml has 16 KB
_BRACKET = re.compile(rb"[\[\]{}]")  # also in comments and text
_DEEPEST = 100
_LONGEST = 400  # characters of a parser's own words
_MOST = 100_000  # values of a file


def read(path: Path) -> Tree:
    """The mapping in a YAML 1.2 file (the reader DVC uses, so that 1e-4 is the same number to both)."""
    try:
        tree = copy.deepcopy(_parse(read_bytes(path, _MAX_BYTES)))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the folder that holds params.yaml") from None
    except (OSError, DataError) as error:
        raise ParamsError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except RecursionError:
        raise ParamsError(f"{path}: is nested too deeply") from None
    except (YAMLError, ValueError) as error:
        said = " ".join(str(error).partition("; use sys.")[0].split())  # Python's advice for whole numbers of 4,300 digits
        raise ParamsError(f"{path}: not valid YAML: {said[:_LONGEST]}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: must hold a mapping, got {type(tree).__name__}")
    if _count(tree, {}) > _MOST:
        raise ParamsError(f"{path}: its aliases (*NAME) repeat more than {_MOST:,} values; write them out")
    return tree


@functools.lru_cache(maxsize=16)
def _parse(text: bytes) -> Any:
    """What YAML says; kept, for it takes 60 ms, and presets and variants read the same files again and again."""
    _check_depth(text)
    return YAML(typ="safe", pure=True).load(text)


def _check_depth(text: bytes) -> None:
    """Raises RecursionError where so many brackets are open at once that the parser would take minutes."""
    depth = 0
    for found in _BRACKET.finditer(text):
        depth = depth + 1 if found[0] in b"[{" else max(0, depth - 1)
        if depth > _DEEPEST:
            raise RecursionError


def _count(node: object, counted: dict[int, float]) -> float:
    """Values of a tree, as often as aliases repeat them; infinite where it holds itself."""
    if not isinstance(node, (dict, list)):
        return 1
    if id(node) not in counted:
        counted[id(node)] = math.inf  # until all of it has been counted
        counted[id(node)] = 1 + sum(_count(each, counted) for each in (node.values() if isinstance(node, dict) else node))
    return counted[id(node)]


def overlay(base: Tree, change: Tree, path: str) -> Tree:
    """base with the leaves of change put over it. A partial tree changes keys; it does not add any."""
    if unknown := sorted(change.keys() - base.keys()):
        raise ParamsError(f"{path}: changes {', '.join(unknown)}, which the base does not have; it has {', '.join(base)}")
    return base | {
        name: overlay(base[name], leaf, f"{path}.{name}") if isinstance(leaf, dict) and isinstance(base[name], dict) else leaf
        for name, leaf in change.items()
    }
