"""Parameters as a tree: read strictly from YAML and laid over one another."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from alexnet.errors import DataError, ParamsError
from alexnet.files.strict import read_bytes

Tree = dict[str, Any]
_MAX_BYTES = 1 << 20  # of a file; params.yaml has 16 KB


def read(path: Path) -> Tree:
    """The mapping in a YAML 1.2 file (the reader DVC uses, so that 1e-4 is the same number to both)."""
    try:
        tree = YAML(typ="safe", pure=True).load(read_bytes(path, _MAX_BYTES))
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the folder that holds params.yaml") from None
    except (OSError, DataError) as error:
        raise ParamsError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    except RecursionError:
        raise ParamsError(f"{path}: is nested too deeply") from None
    except YAMLError as error:
        raise ParamsError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise ParamsError(f"{path}: must hold a mapping, got {type(tree).__name__}")
    return tree


def overlay(base: Tree, change: Tree, path: str) -> Tree:
    """base with the leaves of change put over it. A partial tree changes keys; it does not add any."""
    if unknown := sorted(change.keys() - base.keys()):
        raise ParamsError(f"{path}: changes {', '.join(unknown)}, which the base does not have; it has {', '.join(base)}")
    return base | {
        name: overlay(base[name], leaf, f"{path}.{name}") if isinstance(leaf, dict) and isinstance(base[name], dict) else leaf
        for name, leaf in change.items()
    }
