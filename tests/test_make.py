"""The commands: each is in the help, and no target needs what only a terminal has."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()


def _make(*arguments: str, cwd: Path = ROOT, **env: str) -> "subprocess.CompletedProcess[str]":
    if not shutil.which("make"):
        pytest.skip("no make here")
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=cwd,
        env=os.environ | env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_target_is_in_the_help() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    said = _make("help").stdout
    assert [target for target in targets.split() if f"make {target} " not in said] == []


def test_the_readme_names_commands_that_exist() -> None:
    named = set(
        re.findall(
            r"\bmake ([a-z][a-z-]+)\b",
            "\n".join(
                re.findall(r"`([^`]+)`|^    (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE).__str__().splitlines()
            ),
        )
    )
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert {"run", "test"} <= named <= set(targets.split())


def test_make_alone_explains_itself() -> None:
    assert _make().stdout == _make("help").stdout


def test_the_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "make lint" in script
    assert "make test\n" in script
    assert "`make test`" in (ROOT / "README.md").read_text() or "    make test" in (ROOT / "README.md").read_text()


def _programs(folder: Path, **said: str) -> None:
    """Programs that leave a word in the file `said`."""
    folder.mkdir(parents=True)
    for name, word in said.items():
        (folder / name).write_text(f"#!/bin/sh\necho {word} $* >> said\n")
        (folder / name).chmod(0o755)


def _checkout(root: Path) -> None:
    """What the rule that sets up depends on."""
    shutil.copy(ROOT / "Makefile", root)
    (root / "infra").mkdir()
    for name in ("requirements.lock", "pyproject.toml", "infra/environment.py"):
        (root / name).touch()


def test_the_set_up_is_done_by_the_users_python_also_where_there_is_a_venv(tmp_path: Path) -> None:
    """A set-up that broke off left one, which has not what it could borrow."""
    _checkout(tmp_path)
    _programs(tmp_path / ".venv" / "bin", python3="of-the-venv", python="of-the-venv")
    _programs(tmp_path / "user", python3="the-users")
    path = f"{tmp_path / 'user'}{os.pathsep}{os.environ['PATH']}"
    _make("doctor", cwd=tmp_path, PATH=path)
    assert (tmp_path / "said").read_text() == "the-users infra/environment.py\nof-the-venv -m pipelines.cli.doctor\n"


def test_nothing_is_set_up_to_stop_nothing(tmp_path: Path) -> None:
    _checkout(tmp_path)
    _programs(tmp_path / "user", python3="the-users")
    (tmp_path / "artifacts").mkdir()
    done = _make("clean", cwd=tmp_path, PATH=f"{tmp_path / 'user'}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing was started here\n")
    assert not (tmp_path / "said").exists()
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("target", ["run", "test", "flow", "deploy", "lint", "doctor"])
def test_every_command_does_its_own_set_up(target: str) -> None:
    assert re.search(rf"^{target}: \$\(READY\)", MAKEFILE, re.MULTILINE)


def test_the_code_names_commands_that_exist() -> None:
    """Advice is worth what happens when it is followed."""
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    named = {
        (path.name, target)
        for folder in ("alexnet", "pipelines", "flows", "infra")
        for path in (ROOT / folder).rglob("*.py")
        for target in re.findall(r"`make ([a-z][a-z-]*)", path.read_text())
    }
    assert len(named) > 3
    assert {(name, target) for name, target in named if target not in targets.split()} == set()
