"""One picture through the whole network, as a page that needs no other file and as a slide."""

from math import ceil, log2
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from torch import Tensor

from alexnet.files.atomic import atomic_write_bytes
from alexnet.inference.pretrained import Pretrained
from alexnet.loading.augment import center
from alexnet.model.architecture import Layer
from alexnet.model.points import last_point
from pipelines.pictures import style
from pipelines.pictures.explain import sheets
from pipelines.pictures.explain.slide import draw_slide
from pipelines.pictures.explain.subject import Subject, best_classes, training_crops
from pipelines.pictures.explain.trace import Crossing, Trace, trace
from pipelines.runtime.console import legible

_SHOWN = 4  # maps whose way through norms and pooling is shown
_STEPS = {
    "relu": "ReLU", "tanh": "tanh", "lrn": "local response norm", "map_norm": "norm over the map", "pool": "max pooling",
    "dropout": "x chance to be kept",
}  # fmt: skip
PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=StrictUndefined,
    finalize=legible,
    trim_blocks=True,
    lstrip_blocks=True,
)
PAGES.filters |= {"percent": style.percent}


def write_explanation(stem: Path, subject: Subject) -> None:
    """Writes `stem`.html, the page, and `stem`.png, the slide; by the center crop."""
    traced = trace(subject.model, subject.image)
    atomic_write_bytes(stem.with_name(f"{stem.name}.png"), draw_slide(subject, traced))
    atomic_write_bytes(stem.with_name(f"{stem.name}.html"), _page(subject, traced).encode())


def _page(subject: Subject, traced: Trace) -> str:
    model, network = subject.model, subject.model.network
    return PAGES.get_template("explain.html.j2").render(
        subject=subject,
        schemes=style.SCHEMES,
        towers=style.TOWERS[: traced.towers] if traced.towers > 1 else ["network"],
        picture=_uri(subject.image.numpy()),
        crop=_uri(center(subject.image, network.config.input_px).numpy()),
        crop_px=network.config.input_px,
        classes=best_classes(subject, traced),
        crops=[_uri(crop) for crop in training_crops(subject)],
        layers=[layer(row, traced) for row in network.layers[:-1]],
        changes=[found for row in network.layers for found in [changes(row, traced)] if found],
        crossings=[_crossing(traced, each, model) for each in traced.crossings],
        quantile=sheets.QUANTILE,
    )


def _uri(pixels: UInt8[np.ndarray, "h w 3"]) -> str:
    return sheets.data_uri(style.thumbnail(pixels, 224))


def layer(row: Layer, traced: Trace) -> dict[str, Any]:
    """A layer's responses after everything that follows its weights but dropout."""
    point = traced.response(row.name)
    values, most = traced.by_tower(point), sheets.limit(traced.values[point])
    if row.is_conv:
        images = [sheets.data_uri(sheets.sheet(each, _columns(len(each)), most)) for each in values]
        form = f"{len(values[0]):,} maps of {values[0].shape[1]}x{values[0].shape[2]}"
    else:
        images = [sheets.data_uri(sheets.unit_grid(each, _columns(len(each)), most)) for each in values]
        form = f"{len(values[0]):,} units"
    silent = [float((each.flatten(1) if row.is_conv else each[:, None]).abs().amax(1).eq(0).float().mean()) for each in values]
    steps = [_STEPS[name.split(".")[1]] for name in traced.points_of(row.name)[1:] if not name.endswith("dropout")]
    return {
        "name": row.name,
        "form": form,
        "images": images,
        "most": most,
        "signed": bool((traced.values[point] < 0).any()),
        "steps": ", ".join(steps),
        "silent": silent,
    }


def _columns(count: int) -> int:
    """A power of two, so that this many squares fill a sheet that is wider than high."""
    return int(2 ** ceil(log2(max(1.3 * count, 1)) / 2))


def changes(row: Layer, traced: Trace) -> dict[str, Any] | None:
    """A layer's strongest maps at each of its points, where it has norms or pooling."""
    names = traced.points_of(row.name)
    if not (row.norms or row.pools):
        return None
    last = traced.values[names[-1]]
    count = _SHOWN // traced.towers
    chosen = []
    for tower, maps in enumerate(traced.by_tower(names[-1])):
        order = maps.square().sum((1, 2)).argsort(descending=True, stable=True)[:count]
        chosen += [(tower, int(at) + tower * len(maps)) for at in order]
    columns = []
    for before, name in zip(["", *names], names, strict=False):
        values = traced.values[name]
        most = sheets.limit(values)
        images = [sheets.data_uri(sheets.sheet(values[at : at + 1], 1, most)) for _, at in chosen]
        title = _STEPS[name.split(".")[1]] if "." in name else "weights and bias"
        columns.append({"title": title, "note": _note(name, traced.values.get(before), values), "images": images})
    rows = [f"map {at + 1}" + (f", tower {style.TOWERS[tower]}" if traced.towers > 1 else "") for tower, at in chosen]
    return {"name": row.name, "columns": columns, "rows": rows, "maps": len(last)}


def _note(name: str, before: Tensor | None, after: Tensor) -> str:
    """What a step changes, in numbers."""
    step, side = name.partition(".")[2], f"{after.shape[-1]}x{after.shape[-1]}"
    if before is None:
        return side
    if step in ("lrn", "map_norm"):
        ratio = (before / after)[after.abs() > after.abs().max() * 1e-3]
        low, middle, high = (float(each) for each in _quantiles(ratio))
        return f"values divided by {middle:.2f} (5% to 95%: {low:.2f} to {high:.2f})"
    if step == "pool":
        return f"{before.shape[-1]}x{before.shape[-1]} to {side}: the largest of each window"
    return f"{float((after == 0).float().mean()):.0%} of the values are 0" if step == "relu" else "into -1 to 1"


def _quantiles(values: Tensor) -> list[float]:
    return [float(each) for each in np.quantile(values.numpy(), (0.05, 0.5, 0.95))] if len(values) else [1.0, 1.0, 1.0]


def _crossing(traced: Trace, crossing: Crossing, model: Pretrained) -> dict[str, Any]:
    """A cross connection in words and pictures."""
    rows = model.network.layers
    place = next(number for number, row in enumerate(rows) if row.name == crossing.layer)
    point = last_point(model.config.model, rows[place - 1].name)
    values = traced.values[point]
    images = [
        [{"map": at + 1, "image": sheets.data_uri(sheets.sheet(values[at : at + 1], 1, sheets.limit(values)))} for at in each]
        for each in crossing.strongest
    ]
    if values.dim() == 3:
        sent = f"{len(values) // traced.towers:,} maps of {values.shape[1]}x{values.shape[2]} of {rows[place - 1].name}"
    else:
        sent = f"{crossing.numbers:,} units of {rows[place - 1].name}"
    return {"layer": crossing.layer, "sent": sent, "numbers": crossing.numbers, "shares": crossing.shares, "images": images}
