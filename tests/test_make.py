"""The commands: each is in the help, and no target needs what only a terminal has."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()


def _make(*arguments: str) -> "subprocess.CompletedProcess[str]":
    if not shutil.which("make"):
        pytest.skip("no make here")
    return subprocess.run(
        ["make", "--no-print-directory", *arguments],
        cwd=ROOT,
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
