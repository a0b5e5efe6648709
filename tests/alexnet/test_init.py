"""What `import alexnet` offers."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import alexnet

ROOT = Path(__file__).parents[2]


def test_every_name_is_there_and_listed() -> None:
    for name in alexnet.__all__:
        assert getattr(alexnet, name).__doc__
    assert set(alexnet.__all__) <= set(dir(alexnet))


def test_type_checkers_see_the_same_names() -> None:
    (block,) = [node for node in ast.parse((ROOT / "alexnet/__init__.py").read_text()).body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    assert {alias.asname or alias.name: node.module for node in imports for alias in node.names} == alexnet._SOURCES
    assert (ROOT / "alexnet/py.typed").exists()
    packaged = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["*"]
    assert "py.typed" in packaged


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'alexnet' has no attribute 'ResNet'"):
        alexnet.ResNet  # noqa: B018  looking it up is the test


def test_importing_the_package_imports_no_slow_library() -> None:
    program = "import sys, alexnet; assert not {'torch', 'numpy', 'PIL'} & set(sys.modules); alexnet.DataError"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
