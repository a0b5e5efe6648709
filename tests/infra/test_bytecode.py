"""A module whose bytecode was cut short, as a full disk leaves it, is imported again after the repair."""

import subprocess
import sys
import time
from pathlib import Path

from infra import bytecode


def _import(folder: Path) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-c", "import module; print(module.value)"]
    return subprocess.run(command, cwd=folder, env={"PYTHONPATH": str(folder)}, capture_output=True, text=True)


def test_a_module_can_be_imported_again(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text("value = [1, 2, 3]\n")
    assert _import(tmp_path).stdout == "[1, 2, 3]\n"
    assert list(bytecode.remove_truncated(tmp_path)) == []
    (file,) = tmp_path.rglob("*.pyc")
    whole = file.read_bytes()
    for size in (16, 20, len(whole) - 1):  # a header that is cut is no harm: Python writes it again
        file.write_bytes(whole[:size])
        assert list(bytecode.remove_truncated(tmp_path, since=time.time() + 60)) == []
        assert list(bytecode.remove_truncated(tmp_path)) == [file]
        assert not file.exists()
    file.write_bytes(whole[:-1])
    assert "marshal data too short" in _import(tmp_path).stderr
    assert list(bytecode.remove_truncated(tmp_path)) == [file]
    assert _import(tmp_path).stdout == "[1, 2, 3]\n"
