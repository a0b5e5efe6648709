"""Python's cached bytecode after a disk was full.

A `.pyc` file whose writing broke off stays there until Python 3.12.8 and 3.13.1 (python/cpython issue 126606), and every later
import of its module ends in `EOFError: marshal data too short`.
"""

from collections.abc import Iterator
from importlib.machinery import SourcelessFileLoader
from pathlib import Path


def remove_truncated(folder: Path, since: float = 0.0) -> Iterator[Path]:
    """Removes damaged bytecode, which Python makes anew. since: only what was written from then on (epoch seconds)."""
    for path in folder.rglob("__pycache__/*.pyc"):
        if path.stat().st_mtime >= since and not _is_whole(path):
            path.unlink(missing_ok=True)
            yield path


def _is_whole(path: Path) -> bool:
    """Whether an import can read it, which runs nothing of it; another Python's is left alone."""
    try:
        SourcelessFileLoader(path.stem, str(path)).get_code(path.stem)
    except ImportError as error:
        return "magic number" in str(error)
    except (EOFError, ValueError, TypeError):
        return False
    return True
