"""The names of the places in the network whose values can be read, in the order in which they are computed."""

from alexnet.model.architecture import Layer, ModelConfig, table

SOFTMAX = "softmax"


def steps(row: Layer, config: ModelConfig) -> tuple[str, ...]:
    """What follows a layer's weights, in order: of relu or tanh, lrn, map_norm, pool, dropout."""
    activation = () if row.activates == "never" else (config.nonlinearity,)
    others = (*row.norms, *(("pool",) if row.pools else ()))
    ordered = (*activation, *others) if row.activates == "first" else (*others, *activation)
    return (*ordered, *(("dropout",) if row.drops else ()))


def points(config: ModelConfig) -> tuple[str, ...]:
    """Every point, from `conv1` to `softmax`.

    A layer's name alone is the sum of its weighted inputs and its bias, as a forward hook on torch's Conv2d or Linear sees it.
    What follows has the layer's name and its own: conv1.lrn, conv1.pool, conv1.relu in the reference; conv1.relu first where
    conv1_order is relu-norm-pool; no conv1.lrn where there is none. A layer's last point is what the next layer reads.
    """
    names = [name for row in table(config) for name in (row.name, *(f"{row.name}.{step}" for step in steps(row, config)))]
    return (*names, SOFTMAX)


def last_point(config: ModelConfig, layer: str) -> str:
    """The last point of a layer, as the next layer reads it."""
    return [name for name in points(config) if name.split(".")[0] == layer][-1]


def check_points(config: ModelConfig, names: tuple[str, ...]) -> None:
    """Raises ValueError for a name that is no point of the network; it lists those that are."""
    if unknown := [name for name in names if name not in points(config)]:
        raise ValueError(f"no point {', '.join(unknown)}; this network has {', '.join(points(config))}")
