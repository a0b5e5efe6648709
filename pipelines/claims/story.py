"""The page of what made AlexNet win: each topic in the article's order, with pictures of a run and what claims measured."""

import base64
import io
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import FileSystemLoader
from PIL import Image

from alexnet.errors import DataError
from pipelines.claims import documents, table
from pipelines.claims.compare import Row, Table
from pipelines.claims.mapping import FILE, Mapping
from pipelines.pictures import style
from pipelines.pictures.architecture import render_architecture
from pipelines.pictures.explain import sheets, topics
from pipelines.pictures.explain.page import PAGES, changes, layer
from pipelines.pictures.explain.subject import Subject, best_classes
from pipelines.pictures.explain.trace import Trace, trace

_PAGES = PAGES.overlay(loader=FileSystemLoader(Path(__file__).parent))
_PNG = re.compile(rb"data:image/png;base64,([^\"]*)")


@dataclass(frozen=True)
class Picture:
    """A data URI, what is on it for who does not see it, and the line below it. pixels: drawn without smoothing."""

    uri: str
    alt: str
    caption: str
    pixels: bool = False


@dataclass(frozen=True)
class Measured:
    """A claim on the page, in words. scale: that it was measured at. needed: how many seeds would resolve it."""

    says: str
    paper: str
    log: str
    ours: str
    verdict: str
    seeds: str
    scale: str
    needed: str


def write_story(path: Path, subject: Subject, mapping: Mapping, run: Path) -> None:
    """Writes the page, which needs no other file.

    Args:
        path: Of the HTML file.
        subject: The photograph and the network.
        mapping: The claims; their committed results are read.
        run: The artifacts of the run that trained the network; its pictures are used where it has them.

    Raises:
        DataError: results are damaged, or do not fit one another.
    """
    traced, found = trace(subject.model, subject.image), documents.tables(mapping)
    html = _PAGES.get_template("story.html.j2").render(
        schemes=style.SCHEMES,
        subject=subject,
        measured=_by_claim(found),
        tables=[{"of": each, "design": table.design(each)} for each in found],
        classes=best_classes(subject, traced),
        results=_results(run),
        pictures=_pictures(subject, traced, found, run),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(html, encoding="utf-8")


def _by_claim(found: list[Table]) -> dict[str, list[Measured]]:
    """What is measured of every claim, at every scale that has it."""
    words: dict[str, list[Measured]] = {}
    for each in found:
        for row in each.rows:
            words.setdefault(row.name, []).append(_measured(row, each))
    return words


def _measured(row: Row, of: Table) -> Measured:
    claim, verdict = row.claim, row.outcome.verdict if row.outcome else ""
    unit = "" if row.outcome is None or row.outcome.curves else " points"
    ours = table.ours(row) + unit
    needed = ""
    if row.outcome and not row.outcome.curves and verdict == "not resolved":
        needed = f"it would take {row.outcome.seeds_needed or 'more than 1,000'} to resolve it"
    return Measured(claim.says, table.paper(claim), table.log(claim), ours, verdict, table.finished(row, of), of.scale, needed)


def _results(run: Path) -> dict[str, Any] | None:
    """Errors of the run, as its evaluation has them; None: it has none."""
    try:
        return dict(json.loads((run / "metrics.json").read_bytes()))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise DataError(f"{run / 'metrics.json'}: damaged: {error}; `dvc repro evaluate` makes it") from None


def _pictures(subject: Subject, traced: Trace, found: list[Table], run: Path) -> dict[str, list[Picture]]:
    model = subject.model
    rows = {row.name: row for row in model.network.layers}
    pool, name = model.config.model.pool, subject.name
    windows = f"Windows of {pool.size} and a step of {pool.stride} overlap; windows of {pool.stride} do not"
    drawn = render_architecture(model.config.model, "The network of this page")["svg"]
    return {
        "towers": [
            Picture(_svg(drawn), "The layers of both towers and their cross connections", "Drawn from its configuration")
        ],
        "functions": [Picture(_svg(topics.nonlinearities()), "ReLU rises without end, tanh levels off", "ReLU and tanh")],
        "figure1": [_drawn(each) for each in found if each.rates and any(row.outcome for row in each.rows)],
        "forest": [_drawn(each) for each in found if not each.rates and any(row.outcome for row in each.rows)],
        "kernels": _from_run(
            run, "kernels", "The kernels of conv1 as colors, by tower", "What each tower's first layer looks for"
        ),
        "norm": _steps(changes(rows["conv1"], traced)),
        "windows": [Picture(_svg(topics.pooling_windows(pool.size, pool.stride)), windows, windows)],
        "crops": [_pixels(each, f"Crop {number} of {name}", "") for number, each in enumerate(topics.ten_crops(subject), 1)],
        "noise": [
            _pixels(each, f"{name}, colors shifted, draw {at}", "") for at, each in enumerate(topics.color_noise(subject), 1)
        ],
        "masks": _masks(subject, traced),
        "photo": [_pixels(subject.image.numpy(), name, f"{name}, as the network is given it")],
        "predictions": _from_run(
            run, "predictions", "Images with the five best classes", "Right and sure, unsure, and wrong", photographs=True
        ),
        "layers": [picture for row in model.network.layers[:-1] for picture in _layer(layer(row, traced))],
    }


def _svg(data: bytes) -> str:
    return f"data:image/svg+xml,{quote(b' '.join(data.split()), safe=' /:=;,.()!*@+-')}"


def _photograph(image: Image.Image) -> str:
    """WebP, a tenth of PNG's size for what a camera has seen."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "WEBP", quality=80, method=6)
    return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"


def _drawn(of: Table) -> Picture:
    stem = FILE.parent / of.scale
    table.draw(of, stem)
    alt = f"{of.scale}: " + "; ".join(f"{row.name} {table.ours(row)}" for row in of.rows if row.outcome)
    return Picture(_svg(stem.with_suffix(".svg").read_bytes()), alt, f"Scale {of.scale}, from the committed results")


def _from_run(run: Path, name: str, alt: str, caption: str, *, photographs: bool = False) -> list[Picture]:
    """A picture of the run; photographs: that what is drawn on it are some."""
    path = run / "evaluation" / f"{name}.svg"
    if not path.is_file():
        return []
    drawn = path.read_bytes()
    if photographs:
        drawn = _PNG.sub(lambda png: _photograph(Image.open(io.BytesIO(base64.b64decode(png[1])))).encode(), drawn)
    return [Picture(_svg(drawn), alt, caption)]


def _pixels(pixels: Any, alt: str, caption: str) -> Picture:
    return Picture(_photograph(Image.fromarray(style.thumbnail(pixels, 160))), alt, caption)


def _steps(found: dict[str, Any] | None) -> list[Picture]:
    """A layer's strongest map at each of its points."""
    columns = found["columns"] if found else []
    where = found["rows"][0] if found else ""
    return [
        Picture(each["images"][0], f"{where} after {each['title']}", f"{each['title']}: {each['note']}", True)
        for each in columns
    ]


def _masks(subject: Subject, traced: Trace) -> list[Picture]:
    found = topics.dropped(subject, traced)
    if found is None:
        return []
    name, grids = found
    titles = ["all units", *(f"the mask of step {number}" for number in range(1, len(grids)))]
    return [Picture(sheets.data_uri(grid), f"{name}: {title}", title, True) for grid, title in zip(grids, titles, strict=True)]


def _layer(found: dict[str, Any]) -> list[Picture]:
    name, form = found["name"], found["form"]
    towers = style.TOWERS if len(found["images"]) > 1 else " "
    titles = [f"{name}{tower}: {form}".replace(" :", ":") for tower in towers[: len(found["images"])]]
    return [Picture(image, f"Responses of {title}", title, True) for image, title in zip(found["images"], titles, strict=True)]
