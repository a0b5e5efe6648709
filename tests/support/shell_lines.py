"""The shell lines of the documents: in fenced and indented blocks, and in spans."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
_CODE = re.compile(r"^```\w*\n(.*?)^```$|^    ([^\n]+)$|`([^`\n]+)`", re.MULTILINE | re.DOTALL)
_PROGRAMS = (
    "alexnet|aws|curl|docker|dvc|eval|git|helm|kubectl|make|model_signing|nsys|openssl|pip|pre-commit|prefect|python3?|rm|ssh|sudo"
    "|systemctl|terraform|tofu|torchrun|uv"
)
_SHELL = re.compile(rf"(?:[A-Z_]+=\S+ )*(?:(?:\.venv/bin/)?(?:{_PROGRAMS}) \S.*|\.ci/run)")


def shell_lines() -> dict[str, set[str]]:
    """Every command as it is typed, without a comment or the prompt, by the names of the documents that have it."""
    found: dict[str, set[str]] = {}
    for document in DOCUMENTS:
        for block, line, span in _CODE.findall(document.read_text(encoding="utf-8")):
            for command in commands(block or line or span):
                found.setdefault(command, set()).add(document.name)
    return found


def commands(text: str) -> list[str]:
    """The commands of a piece of code. In a block with a prompt, the other lines are output."""
    lines = text.replace("\\\n", " ").splitlines()
    typed = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")] or lines
    parts = [" ".join(part.split()) for line in typed for part in re.split(r"\s+#\s", line)[0].split("&&")]
    return [part for part in parts if _SHELL.fullmatch(part) and not part.endswith("-m benchmarks.")]
