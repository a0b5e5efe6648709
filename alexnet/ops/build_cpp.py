"""C++ source files compiled on first use, and cached for this machine. Callers have a slower way where there is no compiler."""

import ctypes
import hashlib
import platform
import shutil
import subprocess
import tempfile
from pathlib import Path

# Linked by a separate call: given -ffast-math, the linker makes the whole process flush denormal numbers, torch included.
_COMPILE = ("-O3", "-march=native", "-ffast-math", "-fno-finite-math-only", "-std=c++17", "-fPIC", "-c")
_LINK = ("-shared",)
_COMPILERS = ("c++", "g++", "clang++")


def load(source: Path) -> ctypes.CDLL | None:
    """The library compiled from a source file, or None where it cannot be. Calls into it release the interpreter's lock."""
    compiler = next((found for name in _COMPILERS if (found := shutil.which(name))), None)
    if compiler is None:
        return None
    try:
        return _load_cached(source, compiler) or _load_uncached(source, compiler)
    except (OSError, subprocess.CalledProcessError):
        return None  # a broken compiler


def _load_cached(source: Path, compiler: str) -> ctypes.CDLL | None:
    """The library from the cache, compiled when it is not there yet; None without a usable home."""
    words = (source.read_text(encoding="utf-8"), compiler, *_COMPILE, *_LINK, platform.machine(), _processor())
    try:
        folder = Path.home() / ".cache" / "alexnet"
        path = folder / f"{source.stem}-{hashlib.sha256(chr(0).join(words).encode()).hexdigest()[:16]}.so"
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder, prefix=f"{source.stem}-") as beside:
                _build(source, compiler, Path(beside)).replace(path)
        return ctypes.CDLL(str(path))
    except (OSError, RuntimeError):  # read-only; or no home is known, as for a user id without a name
        return None


def _load_uncached(source: Path, compiler: str) -> ctypes.CDLL:
    """The library compiled for this process alone: once loaded, it needs no file."""
    with tempfile.TemporaryDirectory(prefix="alexnet-") as folder:
        return ctypes.CDLL(str(_build(source, compiler, Path(folder))))


def _build(source: Path, compiler: str, folder: Path) -> Path:
    compiled, linked = folder / "compiled.o", folder / "linked.so"
    for words in ((*_COMPILE, "-o", str(compiled), str(source)), (*_LINK, "-o", str(linked), str(compiled))):
        subprocess.run([compiler, *words], check=True, capture_output=True)
    return linked


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
