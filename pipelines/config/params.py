"""params.yaml as one frozen tree. Every stage reads all of it, so that a mistake anywhere is found before any work."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from alexnet.config import build
from alexnet.errors import ParamsError
from alexnet.images.inspect import ValidateConfig
from alexnet.model.architecture import ModelConfig, current_model
from alexnet.model.points import points
from alexnet.shards.manifest import ShardConfig
from alexnet.training.schedule import TrainConfig
from pipelines.config import tree
from pipelines.evaluation.config import EvaluateConfig
from pipelines.features.config import ExtractConfig, ProbeConfig
from pipelines.registry.release import PublishConfig
from pipelines.sources.base import SourceConfig

FILE = Path("params.yaml")
PRESETS = Path("presets")
SHIPPED = "digits"  # the preset that has every leaf that any other changes, as shipped


@dataclass(frozen=True)
class Params:
    """Every number that can change a result, one section per stage."""

    seed: int
    source: SourceConfig
    validate: ValidateConfig
    shard: ShardConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    probe: ProbeConfig
    extract: ExtractConfig
    publish: PublishConfig

    def __post_init__(self) -> None:
        there = points(self.model)
        if unknown := sorted({*self.extract.points} - {*there}):
            raise ValueError(f"extract.points: this network has no {', '.join(unknown)}; it has {', '.join(there)}")


def load(path: Path = FILE, preset: str | None = None, variant: str | None = None) -> Params:
    """The parameters in the file, with a preset, as `presets.use` lays it over them, and then a variant.

    Raises:
        ParamsError: the file, the preset or the variant does not exist or does not fit. The message names the path of what is
            wrong.
    """
    loaded = build(Params, load_tree(path, preset, variant), str(path))
    for name in loaded.evaluate.baselines:
        load_tree(path, preset, name)
    return loaded


def load_tree(
    path: Path = FILE, preset: str | None = None, variant: str | None = None, changes: tree.Tree | None = None
) -> tree.Tree:
    """The same as a plain tree, whose values are not checked. changes: a partial tree laid over the preset."""
    base = tree.read(path)
    for each in dict.fromkeys([SHIPPED, preset]) if preset else ():
        base = tree.overlay(base, tree.read(preset_file(each)), f"presets.{each}")
    base = tree.overlay(base, changes or {}, "changes")
    variants = base.pop("variants", {})
    if variant and variant not in variants:
        raise ParamsError(f"variants: has no {variant!r}; it has {', '.join(variants) or 'none'}")
    if variant:
        base = tree.overlay(base, variants[variant], f"variants.{variant}")
    return current(base)


_SOURCE: tree.Tree = {
    "splits": dict.fromkeys(("train", "val", "test")),
    "ignore": [],
    "members": dict.fromkeys(("image", "label")),
}


def current(base: tree.Tree) -> tree.Tree:
    """The tree of a params.yaml of today, also of one written before the architecture or the source had today's keys."""
    newer: dict[str, Callable[[tree.Tree], tree.Tree]] = {
        "model": current_model,
        "source": lambda source: _SOURCE | source,
    }
    return base | {name: of(base[name]) for name, of in newer.items() if isinstance(base.get(name), dict)}


def preset_file(name: str, folder: Path = PRESETS) -> Path:
    """The file of a preset. Raises ParamsError that lists all presets when there is none of that name."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(other.stem for other in folder.glob("*.yaml")))
        raise ParamsError(f"presets: has no {name!r}; it has {there or 'none; run from the folder that holds params.yaml'}")
    return path
