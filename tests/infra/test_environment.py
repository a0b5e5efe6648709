"""The set-up: what the lock asks for, what is there already, and the registry that pip is configured for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra import environment

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


def test_what_is_missing_is_what_the_lock_asks_for_on_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LOCK", tmp_path / "lock")
    (tmp_path / "lock").write_text(f"{LOCK}pytest=={pytest.__version__}\nNumPy==0.1\n")
    assert environment.missing() == ["alpha==1.2", "gamma==2", "NumPy==0.1"]


def test_one_entry_keeps_its_hashes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environment, "LOCK", tmp_path / "lock")
    (tmp_path / "lock").write_text(LOCK)
    assert environment._entry("alpha") == "alpha==1.2 \\\n    --hash=sha256:aa \\\n    --hash=sha256:bb\n"


def test_pips_registry_is_handed_to_uv_under_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    settings = environment._uv_settings()
    assert settings["UV_DEFAULT_INDEX"] == "https://strong.invalid/simple"
    assert settings["SSL_CERT_FILE"] == "/ca.pem"
    assert settings["ALL_PROXY"] == "http://proxy.invalid:3128"
    assert settings["UV_FIND_LINKS"] == f"file://{tmp_path}/wheels"
    monkeypatch.setenv("UV_DEFAULT_INDEX", "https://chosen.invalid/simple")
    assert "UV_DEFAULT_INDEX" not in environment._uv_settings()


def test_a_whole_environment_needs_no_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    """The project itself is installed from here, without an index."""
    monkeypatch.setattr(environment, "_install", lambda: pytest.fail("asked a registry"))
    monkeypatch.setattr(environment, "_install_project", lambda: True)
    before = environment.STAMP.stat().st_mtime if environment.STAMP.exists() else 0.0
    if environment._missing_in(environment._PYTHON):
        pytest.skip("this checkout has no whole .venv")
    assert environment.main() == 0
    assert environment.STAMP.stat().st_mtime >= before


def test_an_old_python_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(environment, "_OLDEST", (9, 0))
    assert environment.main() == 1
    said = capsys.readouterr().err
    assert (
        said
        == f"error: Python 9.0 or newer is needed, this is {sys.version.split()[0]}; name another: make PYTHON=python9.0 ...\n"
    )


@pytest.mark.slow
def test_without_a_registry_the_packages_that_python_has_are_used(tmp_path: Path) -> None:
    """A bare clone, an index that does not answer, and an interpreter that has everything."""
    root = Path(__file__).parents[2]
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(root), str(clone)], check=True)
    nowhere = {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_RETRIES": "0",
        "PIP_CONFIG_FILE": os.devnull,
        "UV_OFFLINE": "1",
    }
    env = (
        {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
        | nowhere
        | {"UV_NO_CACHE": "1"}
    )
    done = subprocess.run(
        [sys.executable, "infra/environment.py"], cwd=clone, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert f"no registry answers; using the packages of {sys.executable}" in done.stdout
    subprocess.run(
        [clone / ".venv/bin/python", "-c", "import torch, dvc, prefect, pipelines, alexnet"], cwd=tmp_path, check=True
    )
    assert (clone / ".venv/bin/weed").exists()
