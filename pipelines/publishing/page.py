"""A document of a few kinds of blocks, as Markdown with front matter and as one self-contained web page.

Text may hold `code`, **bold** and [links](address). Text that comes from data goes through `code`.
"""

import base64
import html
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

_CSS = Path(__file__).with_name("page.css")
_INLINE = re.compile(r"`([^`]+)`|\*\*(.+?)\*\*|\[([^\]]+)\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Heading:
    """A section starts."""

    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Table:
    """Rows under a header; every column but the first is set to the right if `numbers`."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True


@dataclass(frozen=True)
class Code:
    """Lines to be typed."""

    text: str
    language: str


@dataclass(frozen=True)
class Figure:
    """A picture of the release, by its path in it."""

    path: str
    caption: str


Block = Heading | Paragraph | Bullets | Table | Code | Figure


@dataclass(frozen=True)
class Page:
    """A title, a sentence under it, a few large numbers with what they are, and the blocks."""

    title: str
    lead: str
    numbers: Sequence[tuple[str, str]]
    blocks: Sequence[Block]


def code(text: str) -> str:
    """Any text as code: nothing in it is markup."""
    return f"`{' '.join(text.replace('`', chr(39)).replace('|', '/').split())}`"


def to_markdown(page: Page, front_matter: dict[str, Any]) -> str:
    """Markdown that Hugging Face, GitHub and people read."""
    matter = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # the order given is the one that reads well
    writer.dump(front_matter, matter)
    parts = [f"---\n{matter.getvalue()}---", f"# {page.title}", page.lead]
    return "\n\n".join([*parts, *(_markdown(block) for block in page.blocks)]) + "\n"


def to_html(page: Page, folder: Path) -> str:
    """One web page that needs nothing else: style and the folder's pictures are in it."""
    tiles = "".join(f"<div><b>{_inline(number)}</b><span>{_inline(name)}</span></div>" for number, name in page.numbers)
    body = "\n".join(_html(block, folder) for block in page.blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{html.escape(page.title)}</title>\n<style>\n{_CSS.read_text()}</style>\n<main>\n"
        f'<header><h1>{_inline(page.title)}</h1>\n<p>{_inline(page.lead)}</p>\n<div class="numbers">{tiles}</div></header>\n'
        f"{body}\n</main>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {text}"
        case Paragraph(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Table(header, rows, numbers):
            rule = ["---", *(["--:" if numbers else "---"] * (len(header) - 1))]
            return "\n".join(f"| {' | '.join(row)} |" for row in (header, rule, *rows))
        case Code(text, language):
            return f"```{language}\n{text}\n```"
        case Figure(path, caption):
            return f"![{caption}]({path})\n\n*{caption}*"


def _html(block: Block, folder: Path) -> str:
    match block:
        case Heading(text):
            return f"<h2>{_inline(text)}</h2>"
        case Paragraph(text):
            return f"<p>{_inline(text)}</p>"
        case Bullets(items):
            return f"<ul>{''.join(f'<li>{_inline(item)}</li>' for item in items)}</ul>"
        case Table(header, rows, numbers):
            head = "".join(f"<th>{_inline(cell)}</th>" for cell in header)
            body = "".join(f"<tr>{''.join(f'<td>{_inline(cell)}</td>' for cell in row)}</tr>" for row in rows)
            kind = ' class="figures"' if numbers else ""
            return f'<div class="wide"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
        case Code(text, _):
            return f"<pre>{html.escape(text)}</pre>"
        case Figure(path, caption):
            data = base64.b64encode((folder / path).read_bytes()).decode()
            source = f"data:image/png;base64,{data}"
            return (
                f'<figure><img src="{source}" alt="{html.escape(caption)}"><figcaption>{_inline(caption)}</figcaption></figure>'
            )


def _inline(text: str) -> str:
    """Escaped, with the marks of code, bold and links turned into elements."""
    parts, end = [], 0
    for found in _INLINE.finditer(text):
        parts.append(html.escape(text[end : found.start()]))
        quoted, bold, link, address = (html.escape(group or "") for group in found.groups())
        parts.append(
            f"<code>{quoted}</code>" if quoted else f"<strong>{bold}</strong>" if bold else f'<a href="{address}">{link}</a>'
        )
        end = found.end()
    return "".join([*parts, html.escape(text[end:])])
