"""The front page of the Data Docs: all that validation.json says, and links to the pages of Great Expectations.

It needs no network. The pages of Great Expectations load styles, scripts and a logo from other hosts when they are opened.
"""

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from alexnet.files.atomic import atomic_write_bytes
from pipelines.validation.report import ValidationReport

_TEMPLATE = Path(__file__).with_suffix(".html.j2")


def write_front_page(folder: Path, report: ValidationReport) -> None:
    """Writes index.html in the folder of Great Expectations' site, over the index page that it made itself."""
    pages = sorted(page.relative_to(folder).as_posix() for page in folder.rglob("*.html") if page.name != "index.html")
    environment = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined)
    html = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(report=report, pages=pages)
    atomic_write_bytes(folder / "index.html", html.encode())
