"""The network of a configuration as text: what every layer does, and what it has."""

from dataclasses import asdict
from typing import Any

from alexnet.model.architecture import Layer, ModelConfig, layer_counts, table, total_counts
from alexnet.model.points import steps


def tree(config: ModelConfig) -> list[dict[str, Any]]:
    """For a program: every layer's counts, kernel, stride, padding and steps; then the totals."""
    counts = layer_counts(config)
    rows = []
    for row, count in zip(table(config), counts, strict=True):
        does = {name: getattr(row, name) for name in ("kernel", "stride", "padding", "edge", "sees_all")}
        rows.append(asdict(count) | {"parameters": count.parameters, "steps": _steps(row, config)} | does)
    total = total_counts(counts)
    return [*rows, asdict(total) | {"parameters": total.parameters}]


def text(config: ModelConfig) -> str:
    """For people: two tables and what the norms and dropout are."""
    layers = table(config)
    at = [row.name for row in layers if row.name in config.cross_connections]
    towers = f"{config.towers} towers, which read each other at {', '.join(at)}" if config.towers > 1 else "1 tower"
    return "\n".join([towers, *_does(config), "", *_has(config), "", *_constants(config)])


def _does(config: ModelConfig) -> list[str]:
    lines = [f"{'':6}{'kernels':>9}{'size':>7}{'stride':>8}{'padding':>9}{'reads':>13}{'output':>9}  then"]
    for at, row in enumerate(table(config)):
        reads = (
            "the image"
            if not at
            else "both towers"
            if row.sees_all and config.towers > 1
            else "its tower" * (config.towers > 1)
        )
        size, stride, padding = (f"{row.kernel}x{row.kernel}", row.stride, row.padding) if row.is_conv else ("", "", "")
        edge = f"{padding}+{row.edge}" if row.edge else padding  # more at the right and bottom
        output = f"{row.size_px}x{row.size_px}" if row.is_conv else ""
        then = ", ".join(_steps(row, config))
        lines.append(f"{row.name:6}{row.outputs:9,}{size:>7}{stride:>8}{edge:>9}{reads:>13}{output:>9}  {then}".rstrip())
    return lines


def _steps(row: Layer, config: ModelConfig) -> list[str]:
    """What follows a layer's weights, with the size of windows and the chance of dropout."""
    size, stride = config.pool.size, config.pool.stride
    details = {
        "pool": f"pool {size}x{size}/{stride} to {row.out_px}x{row.out_px}",
        "dropout": f"dropout {config.dropout:g}",
        "map_norm": "map norm",
    }
    return [details.get(step, step) for step in steps(row, config)]


def _has(config: ModelConfig) -> list[str]:
    layers = layer_counts(config)
    split = config.towers > 1
    header = f"{'':6}{'kernels':>9}{'output':>9}{'parameters':>13}{'neurons':>10}{'multiply-adds':>15}"
    lines = [header + (f"{'each tower: kernels':>22}{'parameters':>13}{'multiply-adds':>15}" if split else "")]
    for row in (*layers, total_counts(layers)):
        size = f"{row.size_px}x{row.size_px}" if row.size_px > 1 else ""
        line = f"{row.name:6}{row.kernels:9,}{size:>9}{row.parameters:13,}{row.neurons:10,}{row.macs:15,}"
        share = f"{row.tower_kernels:22,}{row.tower_parameters:13,}{row.tower_macs:15,}" if split and row.tower_kernels else ""
        lines.append(line + share)
    if split:
        lines.append("fc8, in 2012 with all its classes on one GPU, is in the totals and in no tower")
    return lines


def _constants(config: ModelConfig) -> list[str]:
    lrn, norm = config.lrn, config.map_norm
    lines = []
    if lrn.layers:
        lines.append(
            f"lrn: {lrn.size} channels, alpha {lrn.alpha:g} over their {lrn.alpha_over}, beta {lrn.beta:g}, k {lrn.k:g}"
        )
    if norm.layers:
        lines.append(f"map norm: {norm.size}x{norm.size} pixels, alpha {norm.alpha:g}, beta {norm.beta:g}, k {norm.k:g}")
    if any(row.drops for row in table(config)):
        lines.append(
            f"dropout: {'training divides' if config.dropout_inverted else 'testing multiplies'} by the chance to be kept"
        )
    start = config.init
    lines.append(
        f"start: std {start.std:g}, {start.middle_std:g} from conv3 on; biases 1 in {', '.join(start.ones) or 'no layer'}"
    )
    return lines
