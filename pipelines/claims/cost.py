"""What a scale costs before it is run: networks, epochs and images, by measured rates."""

from alexnet.config import build
from pipelines.claims import cells
from pipelines.claims.cells import Recipes
from pipelines.claims.mapping import Mapping
from pipelines.config.params import Params
from pipelines.runtime import rates


def cost(name: str, mapping: Mapping) -> str:
    """A sentence: how many networks a scale trains, and GPU hours of training by the rates of benchmarks/results.

    A scale whose number of training images is not known beforehand has no hours. Judging is not counted.
    """
    scale = mapping.scale(name)
    recipes = Recipes(scale)
    trained = [cell for cell in cells.plan(mapping, scale, recipes) if len(cell.seeds) == 1]
    hours, where = 0.0, ""
    for cell in trained:
        given = build(Params, recipes.params(cell), name)
        images = given.validate.counts.train_images
        rate = rates.training_rate(given.model, given.train.precision, given.train.batch_size, on_gpu=True)
        if images is None or rate is None:
            return f"{len(trained)} networks."
        hours += images * given.train.epochs / rate[0] / 3600
        where = where or rate[1]
    return f"{len(trained)} networks, {hours:,.0f} GPU hours of training by the rates {where}; divide by the number of GPUs."
