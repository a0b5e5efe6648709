"""The page of a release, index.html: its card as one file that needs no other, with style and pictures inside.

And the page beside it of what came of it, which depends on the registry and so is no part of the release.
"""

import base64
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.common.utils import escapeHtml
from markdown_it.token import Token

from alexnet.inference.metrics import VIEWS_NAMES
from pipelines.publishing.card import TEMPLATES, Facts
from pipelines.publishing.receipt import Receipt
from pipelines.runtime.timings import Timing

_MARKDOWN = MarkdownIt("commonmark", {"html": False}).enable("table")
_MARKDOWN.add_render_rule("table_open", lambda *_: '<div class="wide" tabindex="0"><table>')
_MARKDOWN.add_render_rule(
    "fence", lambda _self, tokens, i, *_: f'<pre tabindex="0"><code>{escapeHtml(tokens[i].content)}</code></pre>\n'
)
_MARKDOWN.add_render_rule("table_close", lambda *_: "</table></div>\n")


def render_page(card: str, facts: Facts, folder: Path) -> str:
    """The page's HTML. card: Markdown with front matter, which the page leaves out; folder: of the pictures that it names."""
    _, _, text = card.split("---\n", 2)
    tokens = _MARKDOWN.parse(text)
    for image in (child for token in tokens for child in token.children or () if child.type == "image"):
        png = folder / str(image.attrs["src"])
        image.children = [Token("text", "", 0, content=png.stem)]  # what a caption says need not be said twice
        svg = png.with_suffix(".svg")  # it follows the reader's color scheme
        kind, picture = ("svg+xml", svg) if svg.exists() else ("png", png)
        image.attrs["src"] = f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"
    contents = {}
    for i, token in enumerate(tokens):
        if token.type == "heading_open" and token.tag == "h2":
            title = tokens[i + 1].content
            token.attrs["id"] = title.lower().replace(" ", "-")
            contents[token.attrs["id"]] = title
    sections = next(i for i, token in enumerate(tokens) if token.tag == "h2")
    head, body = (_MARKDOWN.renderer.render(part, _MARKDOWN.options, {}) for part in (tokens[:sections], tokens[sections:]))
    return TEMPLATES.get_template("page.html.j2").render(
        title=tokens[1].content, head=head, body=body, contents=contents, facts=facts, views_names=VIEWS_NAMES
    )


def render_outcome(receipt: Receipt, margin: float, drift: str, timing: Timing | None = None) -> str:
    """The page of what came of a release.

    It says how long training took: a release made again has equal bytes, so neither it nor the receipt can.

    Args:
        drift: A table in Markdown, or a sentence.
        timing: Of the last training here; None where none is known.
    """
    outcome = receipt.champion
    became = "is champion" if outcome and outcome.is_champion else "is not champion"
    comparison = outcome.comparison if outcome else None
    return TEMPLATES.get_template("outcome.html.j2").render(
        title=f"{receipt.name}@{receipt.version} {became}",
        reason=outcome.reason if outcome else receipt.held_back,
        receipt=receipt,
        comparison=comparison,
        paired=comparison.paired if comparison else None,
        margin=margin,
        timing=timing,
        drift=_MARKDOWN.render(drift),
    )
