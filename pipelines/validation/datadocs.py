"""The front page of the Data Docs: the data in pictures and distributions, all that validation.json says, and further pages.

It needs no network. The pages of Great Expectations load styles, scripts and a logo from other hosts when they are opened.
"""

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from alexnet.files.atomic import atomic_write_bytes
from pipelines.runtime.console import legible
from pipelines.validation.distributions import Distribution
from pipelines.validation.report import ValidationReport
from pipelines.validation.thumbnails import SIDE_PX, Pictures

_TEMPLATE = Path(__file__).with_suffix(".html.j2")


def write_front_page(
    folder: Path, report: ValidationReport, pictures: Pictures, shapes: list[Distribution], names: dict[str, str]
) -> None:
    """Writes index.html in the folder of Great Expectations' site, over the index page that it made itself.

    Args:
        names: Readable names of classes by wnid.
    """
    pages = sorted(page.relative_to(folder).as_posix() for page in folder.rglob("*.html") if page.name != "index.html")
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, finalize=legible
    )
    html = environment.from_string(_TEMPLATE.read_text(encoding="utf-8")).render(
        report=report, pages=pages, pictures=pictures, shapes=shapes, names=names, side_px=SIDE_PX
    )
    atomic_write_bytes(folder / "index.html", html.encode())
