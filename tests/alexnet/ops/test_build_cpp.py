"""C++ that is compiled on first use."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet.ops import build_cpp

SOURCE = Path(build_cpp.__file__).parents[1] / "images" / "statistics.cpp"

pytestmark = pytest.mark.skipif(build_cpp.load(SOURCE) is None, reason="no C++ compiler here")


def test_loading_the_kernels_leaves_small_numbers_to_the_process() -> None:
    program = "import torch; from alexnet.ops import cpu; assert cpu.library(); print(torch.tensor([1e-40]).mul(1).item() > 0)"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stdout.strip() == "True", run.stderr


def test_without_a_usable_home_the_kernels_are_made_for_the_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As in a container whose user is only a number, or whose home cannot be written."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("HOME", str(tmp_path / "file"))
    assert build_cpp._load_cached(SOURCE, "c++") is None

    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    assert build_cpp.load(SOURCE) is not None


def test_a_compiler_that_fails_is_no_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: "/bin/false")
    assert build_cpp.load(SOURCE) is None
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert build_cpp.load(SOURCE) is None


def test_a_compiled_library_is_cached(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert build_cpp.load(SOURCE) is not None
    (library,) = (tmp_path / ".cache" / "alexnet").iterdir()
    at = library.stat().st_mtime_ns
    assert build_cpp.load(SOURCE) is not None
    assert library.stat().st_mtime_ns == at
