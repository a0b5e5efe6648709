"""The Makefile: every target is in the help and sets up the environment; documents and messages name existing targets."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()
README = (ROOT / "README.md").read_text()


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
    text = _make("help").stdout
    assert [target for target in targets.split() if f"make {target} " not in text] == []


def test_the_help_is_in_groups() -> None:
    first, *groups = _make("help").stdout.split("\n\n")
    assert first.startswith("  make help ")
    assert [group.partition("\n")[0] for group in groups] == re.findall(r"^# --- (.*)$", MAKEFILE, re.MULTILINE)
    assert all("\n  make " in group for group in groups)


def test_every_target_in_the_documents_exists() -> None:
    documents = [README, (ROOT / "CONTRIBUTING.md").read_text(), *(path.read_text() for path in (ROOT / "docs").glob("*.md"))]
    found = re.findall(r"`([^`\n]+)`|^    (.+)$", "\n".join(documents), re.MULTILINE)
    code = "\n".join(span or line for span, line in found)
    named = set(re.findall(r"\bmake ([a-z][a-z-]+)\b", code))
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    assert {"run", "test"} <= named <= set(targets.split())


def test_make_without_a_target_prints_the_help() -> None:
    assert _make().stdout == _make("help").stdout


def test_ci_runs_the_readmes_test_command() -> None:
    script = (ROOT / ".ci/run").read_text()
    assert "make lint" in script
    assert "make test\n" in script
    assert "\n    make test " in README


def _programs(folder: Path, **words: str) -> None:
    """Programs by name that append their word and arguments to the file `calls`."""
    folder.mkdir(parents=True)
    for name, word in words.items():
        (folder / name).write_text(f"#!/bin/sh\necho {word} $* >> calls\n")
        (folder / name).chmod(0o755)


def _checkout(root: Path) -> None:
    """A Makefile with the files that its set-up rule depends on."""
    shutil.copy(ROOT / "Makefile", root)
    (root / "infra").mkdir()
    for name in ("requirements.lock", "pyproject.toml", "infra/environment.py"):
        (root / name).touch()


def test_who_has_no_name_and_no_home_gets_both(tmp_path: Path) -> None:
    """As a container's user id; DVC asks for them."""
    show = "--eval=show: ; @echo $$LOGNAME $$HOME"
    assert _make("-s", show, "show", LOGNAME="ann", HOME="/h/ann").stdout == "ann /h/ann\n"
    assert _make("-s", show, "show", LOGNAME="", USER="ben", HOME="/h").stdout == "ben /h\n"
    for name, text in (("id", "echo 54321; test $1 = -u"), ("getent", "exit 2")):
        (tmp_path / name).write_text(f"#!/bin/sh\n{text}\n")
        (tmp_path / name).chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert _make("-s", show, "show", PATH=path, LOGNAME="", USER="", HOME="").stdout == f"54321 {ROOT}/.local/home\n"


def test_the_users_python_sets_up_also_where_a_venv_exists(tmp_path: Path) -> None:
    """An interrupted set-up leaves a .venv without packages; the user's Python may have some to borrow."""
    _checkout(tmp_path)
    _programs(tmp_path / ".venv" / "bin", python3="of-the-venv", python="of-the-venv")
    _programs(tmp_path / "user", python3="the-users")
    path = f"{tmp_path / 'user'}{os.pathsep}{os.environ['PATH']}"
    _make("doctor", cwd=tmp_path, PATH=path)
    assert (tmp_path / "calls").read_text() == "the-users infra/environment.py\nof-the-venv -m pipelines.cli.main doctor\n"


def test_down_and_clean_set_nothing_up(tmp_path: Path) -> None:
    _checkout(tmp_path)
    _programs(tmp_path / "user", python3="the-users")
    (tmp_path / "artifacts").mkdir()
    done = _make("clean", cwd=tmp_path, PATH=f"{tmp_path / 'user'}{os.pathsep}{os.environ['PATH']}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("nothing was started here\n")
    assert not (tmp_path / "calls").exists()
    assert not (tmp_path / "artifacts").exists()


@pytest.mark.parametrize("target", ["run", "test", "flow", "deploy", "lint", "doctor"])
def test_every_target_depends_on_the_set_up(target: str) -> None:
    assert re.search(rf"^{target}: \$\(READY\)", MAKEFILE, re.MULTILINE)


def test_every_target_in_the_code_exists() -> None:
    (targets,) = re.findall(r"^\.PHONY: (.*)$", MAKEFILE, re.MULTILINE)
    named = {
        (path.name, target)
        for folder in ("alexnet", "pipelines", "flows", "infra")
        for path in (ROOT / folder).rglob("*.py")
        for target in re.findall(r"`make ([a-z][a-z-]*)", path.read_text())
    }
    assert len(named) > 3
    assert {(name, target) for name, target in named if target not in targets.split()} == set()
