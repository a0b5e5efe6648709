"""Setting up .venv: the packages of the lock, installed packages, and the registry that pip is configured for."""

import ast
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from types import SimpleNamespace

import pytest

from infra import environment

ROOT = Path(__file__).parents[2]
LOCK = """\
alpha==1.2 \\
    --hash=sha256:aa \\
    --hash=sha256:bb
    # via beta
beta-x==3.0.post1 ; sys_platform == 'win32' \\
    --hash=sha256:cc
gamma==2
"""


def test_pins_are_read_with_their_markers() -> None:
    assert list(environment.pins(LOCK)) == [
        ("alpha", "1.2", ""),
        ("beta-x", "3.0.post1", "sys_platform == 'win32'"),
        ("gamma", "2", ""),
    ]


def test_missing_packages_are_those_of_the_lock_for_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LOCK", tmp_path / "lock")
    (tmp_path / "lock").write_text(f"{LOCK}pytest=={pytest.__version__}\nNumPy==0.1\n")
    assert environment.missing() == ["alpha==1.2", "gamma==2", "NumPy==0.1"]


def test_the_entry_of_one_package_has_its_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LOCK", tmp_path / "lock")
    (tmp_path / "lock").write_text(LOCK)
    assert environment._entry("alpha==") == "alpha==1.2 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"


def test_pips_settings_become_uvs_variables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wheels").mkdir()
    config = tmp_path / "pip.conf"
    config.write_text(
        "[global]\nindex-url = https://weak.invalid/simple\ncert = /ca.pem\n"
        f"find-links = file://{tmp_path}/wheels file://{tmp_path}/absent\n[install]\nindex-url = https://strong.invalid/simple\n"
    )
    for name in [name for name in os.environ if name.startswith(("PIP_", "UV_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_PROXY", "http://proxy.invalid:3128")
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    settings = environment._uv_settings(Path(sys.executable))
    assert settings["UV_DEFAULT_INDEX"] == "https://strong.invalid/simple"
    assert settings["SSL_CERT_FILE"] == "/ca.pem"
    assert settings["ALL_PROXY"] == "http://proxy.invalid:3128"
    assert settings["UV_FIND_LINKS"] == f"file://{tmp_path}/wheels"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://chosen.invalid/simple")
    assert "UV_DEFAULT_INDEX" not in environment._uv_settings(Path(sys.executable))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A bare clone of HEAD, with this folder's environment.py, lock and pyproject.toml."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    for name in ("infra/environment.py", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, clone / name)
    return clone


def _set_up(clone: Path) -> "subprocess.CompletedProcess[str]":
    """Runs environment.py where no registry answers."""
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "UV_OFFLINE": "1",
        "UV_NO_CACHE": "1",
    }
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_", "PYTHONPATH"))} | nowhere
    return subprocess.run(
        [sys.executable, "infra/environment.py"], cwd=clone, env=env, capture_output=True, text=True, check=False
    )


def test_a_complete_environment_needs_no_registry(clone: Path) -> None:
    """The project itself is installed from here, without an index."""
    if environment.missing():
        pytest.skip("this interpreter lacks packages of the lock")  # as when only the library is installed
    venv.create(clone / ".venv", with_pip=False)
    (packages,) = (clone / ".venv" / "lib").glob("python*/site-packages")
    (packages / "complete.pth").write_text(sysconfig.get_path("purelib"))
    done = _set_up(clone)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (clone / ".venv/installed").exists()
    imported = subprocess.check_output(
        [clone / ".venv/bin/python", "-E", "-c", "import pipelines; print(pipelines.__file__)"], cwd=clone.parent, text=True
    )
    assert Path(imported.strip()) == clone / "pipelines" / "__init__.py"


def test_an_environment_that_lacks_only_pip_keeps_its_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As uv creates them; without a registry the packages could not be installed again."""
    monkeypatch.setattr(environment, "VENV", tmp_path)
    monkeypatch.setattr(environment, "_PYTHON", tmp_path / "bin" / "python")
    monkeypatch.setattr(environment, "ROOT", tmp_path)
    venv.create(tmp_path, with_pip=False)
    (packages,) = (tmp_path / "lib").glob("python*/site-packages")
    (packages / "precious.py").touch()
    assert not environment._has_pip()
    assert environment._create_venv()
    assert environment._has_pip()
    assert (packages / "precious.py").exists()


def test_an_absent_environment_lacks_everything(tmp_path: Path) -> None:
    lock = list(environment.pins((ROOT / "requirements.lock").read_text()))
    assert environment._missing_in(tmp_path / "python") == [f"{name}=={version}" for name, version, _ in lock]
    for name, version, marker in lock:  # contourpy is there twice, for different Pythons
        assert environment._entry(f"{name}=={version} ").startswith(f"{name}=={version} " + (f"; {marker} " if marker else ""))


@pytest.mark.parametrize(
    ("pinned", "satisfied"), [("2.15.0", True), ("2.15.0+cpu", True), ("2.15.0+cu1", False), ("2.15", False)]
)
def test_a_local_build_satisfies_the_pin(pinned: str, satisfied: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A torch for another CUDA, or for none, was installed on purpose. A second one behind it on sys.path does not count."""
    found = [SimpleNamespace(metadata={"Name": "Torch_X"}, version=version) for version in ("2.15.0+cpu", "2.15")]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: found)
    monkeypatch.setattr(environment, "LOCK", tmp_path / "lock")
    environment.LOCK.write_text(f"torch-x=={pinned} \\\n")
    assert environment.missing() == ([] if satisfied else [f"torch-x=={pinned}"])


@pytest.mark.parametrize("version", ["2.15.0", "2.15.0+cpu"])
def test_a_torch_without_cuda_needs_no_package_of_cuda(version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [SimpleNamespace(metadata={"Name": "torch"}, version=version)]
    monkeypatch.setattr(importlib.metadata, "distributions", lambda: found)
    monkeypatch.setattr(environment, "LOCK", tmp_path / "lock")
    environment.LOCK.write_text("cuda-toolkit==1\nnvidia-cublas==2\nobstore==3\ntorch==2.15.0\ntriton==4\n")
    lacking = ["cuda-toolkit==1", "nvidia-cublas==2", "obstore==3", "triton==4"]
    assert environment.missing() == (["obstore==3"] if version.endswith("cpu") else lacking)


def test_the_documented_builds_without_cuda_are_of_the_locks_versions() -> None:
    documented = dict(re.findall(r"(torch\w*)==(\S+)\+cpu", (ROOT / "docs/commands.md").read_text()))
    locked = {name: version for name, version, _ in environment.pins(environment.LOCK.read_text())}
    assert documented == {name: locked[name] for name in ("torch", "torchvision")}


def test_the_environments_programs_are_found_without_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by `.venv/bin/dvc repro`, whose stages are started by `python`."""
    venv.create(tmp_path / ".venv", symlinks=True)
    monkeypatch.setattr(environment, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(environment, "_PYTHON", tmp_path / ".venv" / "bin" / "python")
    environment._put_programs_on_path()
    nested = "import os, subprocess; subprocess.run(['python', '-c', 'import os; print(os.environ[\"PATH\"])'])"
    found = subprocess.run([environment._PYTHON, "-c", nested], env={"PATH": "/usr/bin"}, capture_output=True, text=True)
    assert found.stdout == f"{tmp_path / '.venv' / 'bin'}:/usr/bin\n", found.stderr


def test_a_python_without_the_packages_says_what_to_do(tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    bare = tmp_path / "bare" / "bin" / "python"
    said = subprocess.run([bare, "-m", "pipelines.fetch"], cwd=ROOT, env={"PATH": os.defpath}, capture_output=True, text=True)
    assert said.returncode == 1
    assert said.stderr == (
        f"error: {bare} lacks this project's packages; `make doctor` makes .venv, then PATH=$PWD/.venv/bin:$PATH\n"
    )


def test_an_older_python_can_parse_it() -> None:
    """Annotations that 3.8 does not understand are not evaluated."""
    tree = ast.parse(Path(environment.__file__).read_text(), feature_version=(3, 8))
    assert any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)


def test_an_old_python_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(environment, "_OLDEST", (9, 0))
    assert environment.main() == 1
    printed = capsys.readouterr().err
    assert (
        printed
        == f"error: Python 9.0 or newer is needed, this is {sys.version.split()[0]}; name another: make PYTHON=python9.0 ...\n"
    )


@pytest.mark.slow
def test_without_a_registry_the_packages_of_the_running_python_are_used(clone: Path, tmp_path: Path) -> None:
    """A bare clone, an index that does not answer, and an interpreter that has everything."""
    done = _set_up(clone)
    assert done.returncode == 0, done.stderr
    assert f"no registry in reach; using the packages of {sys.executable}" in done.stdout
    assert done.stderr == ""
    subprocess.run(
        [clone / ".venv/bin/python", "-c", "import torch, dvc, prefect, pipelines, alexnet"], cwd=tmp_path, check=True
    )
    programs = {path.name for path in (clone / ".venv/bin").iterdir()}
    assert {"weed", "dvc", "prefect", "uv"} <= programs
