"""One picture in the network on one slide, 16 to 9: its crop, every layer's strongest maps by tower, the five best classes."""

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from alexnet.loading.augment import center
from alexnet.model.architecture import Layer
from pipelines.pictures import style
from pipelines.pictures.explain import sheets
from pipelines.pictures.explain.subject import Subject, best_classes, training_crops
from pipelines.pictures.explain.trace import Crossing, Trace
from pipelines.pictures.predictions import draw_bars
from pipelines.pictures.style import FAINT, ORANGE, TOWERS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INCHES = (12.8, 7.2)
_ROWS, _COLUMNS = 4, 2  # of the strongest maps that are shown of every layer and tower
_LEFT, _RIGHT = 0.17, 0.78  # where the layers are, in fractions of the slide's width


def draw_slide(subject: Subject, traced: Trace) -> bytes:
    """The PNG, 2560 pixels wide."""
    file = io.BytesIO()
    with style.drawing(_INCHES, lambda figure: _draw(figure, subject, traced)) as figure:
        figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()


def _draw(figure: "Figure", subject: Subject, traced: Trace) -> None:
    figure.set_layout_engine("none")
    names = f"{style.drawable(subject.name)[:60]} in {style.drawable(subject.model_name)[:60]}"
    title = figure.text(0.02, 0.935, names, size=19, weight="bold")
    title.set_fontsize(19 * min(1, 0.96 * figure.bbox.width / title.get_window_extent().width))
    about = "The center crop, layer by layer: the strongest maps, each layer on its own scale."
    true = f"  True class: {style.short(subject.true_class)}." if subject.true_class else ""
    figure.text(0.02, 0.895, about + true, color=FAINT)
    _draw_picture(figure, subject)
    rows = subject.model.network.layers[:-1]
    widths = [1.0 if row.is_conv else 0.42 for row in rows]
    step = (_RIGHT - _LEFT) / sum(widths)
    tops = (0.5, 0.1) if traced.towers > 1 else (0.3,)
    crossings = {each.layer: each for each in traced.crossings}
    place = _LEFT
    for row, width in zip(rows, widths, strict=True):
        _draw_layer(figure, traced, row, (place, width * step, tops))
        if row.name in crossings:
            _draw_crossing(figure, place - 0.05 * step, crossings[row.name])
        place += width * step
    if "fc8" in crossings:
        _draw_crossing(figure, place, crossings["fc8"])
    for tower, top in enumerate(tops if traced.towers > 1 else ()):
        figure.text(_LEFT - 0.012, top + 0.17, f"tower {TOWERS[tower]}", rotation=90, va="center", ha="right", weight="bold")
    if crossings:
        text = "Cross connections, with the share of the weighted inputs that comes from the other tower (fc8: from tower b)"
        figure.text(_LEFT, 0.035, text, size=10, color=ORANGE)
    _draw_classes(figure, subject, traced)
    _draw_steps(figure, subject, traced)


def _draw_picture(figure: "Figure", subject: Subject) -> None:
    """The center crop, and under it crops as training draws them."""
    axes = figure.add_axes((0.02, 0.575, 0.12, 0.2133))
    style.show_image(axes, center(subject.image, subject.model.config.model.input_px).numpy())
    figure.text(0.02, 0.8, "center crop", size=11)
    if crops := training_crops(subject):
        figure.text(0.02, 0.52, "as training sees it", size=11)
        for at, crop in enumerate(crops[:6]):
            row, column = divmod(at, 2)
            small = figure.add_axes((0.02 + 0.0615 * column, 0.4 - 0.11 * row, 0.0585, 0.104))
            style.show_image(small, style.thumbnail(crop))


def _draw_crossing(figure: "Figure", place: float, crossing: Crossing) -> None:
    from matplotlib.lines import Line2D

    for low, high in ((0.445, 0.487), (0.487, 0.445)):
        figure.add_artist(Line2D((place - 0.012, place + 0.012), (low, high), color=ORANGE, linewidth=2.5))
    share = style.percent(float(np.mean(crossing.shares)))
    figure.text(place, 0.436, share, size=10, color=ORANGE, ha="center", va="top")


def _draw_layer(figure: "Figure", traced: Trace, row: Layer, where: tuple[float, float, tuple[float, ...]]) -> None:
    """A column: the layer's name, and its strongest maps or all its units, of every tower."""
    left, width, tops = where
    point = traced.response(row.name)
    values, most = traced.by_tower(point), sheets.limit(traced.values[point])
    figure.text(left + 0.45 * width, 0.845, row.name, size=12, weight="bold", ha="center")
    form = f"{len(values[0]):,} of {values[0].shape[1]}x{values[0].shape[2]}" if row.is_conv else f"{len(values[0]):,}"
    figure.text(left + 0.45 * width, 0.82, form, size=style.SMALL, color=FAINT, ha="center")
    for each, low in zip(values, tops, strict=True):
        axes = figure.add_axes((left, low, 0.9 * width, 0.3))
        axes.imshow(_pixels(each, row, most), interpolation="none", aspect="auto" if not row.is_conv else "equal")
        axes.axis("off")
        axes.set_anchor("N")


def _pixels(values: Tensor, row: Layer, most: float) -> np.ndarray[Any, Any]:
    if not row.is_conv:
        return sheets.unit_grid(values, max(1, round((len(values) / 12) ** 0.5)), most)
    order = values.square().sum((1, 2)).argsort(descending=True, stable=True)[: _ROWS * _COLUMNS]
    return sheets.sheet(values[order], _COLUMNS, most)


def _draw_classes(figure: "Figure", subject: Subject, traced: Trace) -> None:
    best = best_classes(subject, traced)
    figure.text(0.8, 0.8, "the five best classes", size=11)
    axes = figure.add_axes((0.8, 0.36, 0.18, 0.42))
    names = [each["name"] for each in best]
    is_true = np.array([subject.true_class is not None and name == subject.true_class for name in names])
    draw_bars(axes, names, np.array([each["probability"] for each in best], np.float32), is_true)
    if traced.towers > 1:
        a, b = best[0]["logits"]
        text = f"logit of {style.short(names[0], 18)}:\n{a:+.1f} from tower a, {b:+.1f} from b"
        figure.text(0.8, 0.335, text, size=style.SMALL, color=FAINT, va="top")


def _draw_steps(figure: "Figure", subject: Subject, traced: Trace) -> None:
    """The first layer's strongest map at each of its points: what norms and pooling change."""
    first = subject.model.network.layers[0].name
    points = traced.points_of(first)
    at = int(traced.values[points[-1]].square().sum((1, 2)).argmax())
    figure.text(0.8, 0.24, f"{first}, map {at + 1}, step by step", size=11)
    width = 0.18 / max(4, len(points))
    for number, point in enumerate(points):
        axes = figure.add_axes((0.8 + number * width, 0.115, 0.92 * width, 0.09))
        axes.imshow(sheets.sheet(traced.values[point][at : at + 1], 1), interpolation="none")
        axes.axis("off")
        label = f"{point.partition('.')[2] or 'weights'}\n{traced.values[point].shape[1]}x{traced.values[point].shape[2]}"
        figure.text(0.8 + (number + 0.46) * width, 0.11, label, size=8, color=FAINT, ha="center", va="top")
