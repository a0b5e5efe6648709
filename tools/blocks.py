"""Parts of documents that programs write: the lines between `<!-- NAME: COMMAND writes this -->` and `<!-- end of NAME -->`."""

import re
from pathlib import Path


def replace_block(path: Path, name: str, text: str) -> None:
    """Puts text between the marks of a document. Raises ValueError where they are not there, once each."""
    path.write_text(with_block(path.read_text(encoding="utf-8"), name, text), encoding="utf-8")


def with_block(document: str, name: str, text: str) -> str:
    """The document with text between the marks of this name."""
    found = re.compile(rf"(<!-- {re.escape(name)}: [^>\n]*-->\n).*?(<!-- end of {re.escape(name)} -->)", re.DOTALL)
    new, count = found.subn(lambda marks: f"{marks[1]}\n{text.strip()}\n\n{marks[2]}", document)
    if count != 1:
        raise ValueError(
            f"the marks of {name} stand {count} times; write `<!-- {name}: COMMAND -->` and `<!-- end of {name} -->` once"
        )
    return new
