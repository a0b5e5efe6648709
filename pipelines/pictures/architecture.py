"""Figure 2, drawn from the configuration: every layer by tower, what follows its weights, and the cross connections."""

from textwrap import wrap
from typing import TYPE_CHECKING

from alexnet.model.architecture import CHANNELS, Layer, ModelConfig, layer_counts, table, total_counts
from alexnet.model.points import steps
from pipelines.pictures import style
from pipelines.pictures.style import BLUE, FAINT, INK, LINE, ORANGE, STEPS, TOWERS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_BOX, _LINE, _GAP = 0.56, 0.17, 0.3  # heights in inches: of a box, of a further line in it, between boxes
_EDGE, _BETWEEN = 0.1, 0.24  # inches beside and between the towers
_NAMES = {"relu": "ReLU", "tanh": "tanh", "lrn": "LRN", "map_norm": "map norm"}


def render_architecture(config: ModelConfig, title: str) -> dict[str, bytes]:
    """The picture as PNG and SVG, by `png` and `svg`."""
    rows, notes = table(config), _notes(config)
    texts = [wrap(then_of(row, config), 34 if config.towers > 1 else 70) for row in rows]
    height = 0.75 + (len(rows) + 1) * (_BOX + _GAP) + sum(_LINE * (len(text) - 1) for text in texts) + 0.2 * len(notes)

    def draw(figure: "Figure") -> None:
        figure.set_layout_engine("none")
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set(xlim=(0, style.WIDTH), ylim=(height, 0))
        axes.axis("off")
        axes.text(_EDGE, 0.28, style.drawable(title), weight="bold", size=12)
        axes.text(_EDGE, 0.5, _totals(config), color=FAINT, size=style.SMALL)
        top = 0.68
        _box(
            axes,
            (_EDGE, style.WIDTH - _EDGE),
            top,
            f"picture, {config.input_px}x{config.input_px}x{CHANNELS}",
            ["mean image subtracted"],
        )
        above = _BOX
        for row, text in zip(rows, texts, strict=True):
            _arrows(axes, config, row, top + above)
            top += above + _GAP
            above = _BOX + _LINE * (len(text) - 1)
            for tower, where in enumerate(_places(config, row)):
                name = row.name + (f"{TOWERS[tower]}" if config.towers > 1 and row is not rows[-1] else "")
                _box(axes, where, top, f"{name}: {weights_of(row, config)}", text)
        for number, note in enumerate(notes):
            axes.text(_EDGE, top + _BOX + 0.3 + 0.2 * number, note, color=FAINT, size=style.SMALL)

    return style.render((style.WIDTH, height), draw, f"{title}. {_totals(config)}")


def weights_of(row: Layer, config: ModelConfig) -> str:
    """A tower's kernels with their size, or its units; of fc8, the classes."""
    count = row.outputs if row.activates == "never" else row.outputs // config.towers
    if not row.is_conv:
        return f"{count:,} {'classes' if row.activates == 'never' else 'units'}"
    stride = f"/{row.stride}" if row.stride > 1 else ""
    return f"{count:,} of {row.kernel}x{row.kernel}x{row.weight_shape(config.towers)[1]}{stride}"


def then_of(row: Layer, config: ModelConfig) -> str:
    """What the weights give, and what follows them, in order."""
    parts = [f"{row.size_px}x{row.size_px}"] if row.is_conv else []
    for step in steps(row, config):
        if step == "pool":
            parts.append(f"pool {config.pool.size}/{config.pool.stride}: {row.out_px}x{row.out_px}")
        else:
            parts.append(f"dropout {config.dropout:g}" if step == "dropout" else _NAMES[step])
    return ", ".join(parts) or "softmax"


def _totals(config: ModelConfig) -> str:
    total = total_counts(layer_counts(config))
    towers = f"{config.towers} towers" if config.towers > 1 else "1 tower"
    return f"{towers}, {total.parameters:,} parameters, {total.macs / 1e6:,.1f} M multiply-adds a crop"


def _notes(config: ModelConfig) -> list[str]:
    """What the boxes abbreviate."""
    rows = table(config)
    first = rows[0]
    size = f"{first.kernel}x{first.kernel} weights on {first.inputs} channels, stride {first.stride}"
    lines = [f"{weights_of(first, config)}: {config.kernels[0]} kernels of {size}"]
    if any(row.pools for row in rows):
        lines.append(f"pool: max pooling, {config.pool.size}x{config.pool.size} windows, stride {config.pool.stride}")
    if config.lrn.layers:
        c = config.lrn
        lines.append(f"LRN: n {c.size}, alpha {c.alpha:g} over the {c.alpha_over}, beta {c.beta:g}, k {c.k:g}")
    if config.map_norm.layers:
        m = config.map_norm
        lines.append(f"map norm: {m.size}x{m.size} of one map, alpha {m.alpha:g}, beta {m.beta:g}, k {m.k:g}")
    if config.towers > 1:
        lines.append("orange: a cross connection, the layer reads both towers")
    return lines


def _places(config: ModelConfig, row: Layer) -> list[tuple[float, float]]:
    """Left and right of a layer's boxes, a box a tower; fc8 has one."""
    whole = (_EDGE, style.WIDTH - _EDGE)
    if config.towers == 1 or row.activates == "never":
        return [whole]
    middle = style.WIDTH / 2
    return [(_EDGE, middle - _BETWEEN / 2), (middle + _BETWEEN / 2, style.WIDTH - _EDGE)]


def _box(axes: "Axes", where: tuple[float, float], top: float, title: str, text: list[str]) -> None:
    from matplotlib.patches import FancyBboxPatch

    left, right = where
    box = FancyBboxPatch(
        (left, top),
        right - left,
        _BOX + _LINE * (len(text) - 1),
        boxstyle="round,pad=0,rounding_size=0.06",
        facecolor=STEPS[1][0][0],
        edgecolor=LINE,
    )
    axes.add_patch(box)
    axes.text(left + 0.09, top + 0.23, title, color=INK, size=style.SMALL, weight="bold")
    for number, line in enumerate(text):
        axes.text(left + 0.09, top + 0.43 + _LINE * number, line, color=INK, size=8.5)


def _arrows(axes: "Axes", config: ModelConfig, row: Layer, bottom: float) -> None:
    """From the boxes above a layer, whose lower edge is at `bottom`, to its own."""
    middles = [(left + right) / 2 for left, right in _places(config, row)] if config.towers > 1 else [style.WIDTH / 2]
    whole = [(left + right) / 2 for left, right in ((_EDGE, style.WIDTH / 2), (style.WIDTH / 2, style.WIDTH - _EDGE))]
    ends = whole if config.towers > 1 else middles
    for source, start in enumerate(ends):
        for target, end in enumerate(ends):
            crosses = source != target
            if crosses and not (row.sees_all and row.inputs > CHANNELS and row.activates != "never"):
                continue
            style_of = {"arrowstyle": "-|>", "color": ORANGE if crosses else BLUE, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
            axes.annotate("", (end + 0.15 * (source - target), bottom + _GAP), (start, bottom), arrowprops=style_of)
