"""params.yaml as one frozen tree. Every stage reads all of it, so that a mistake anywhere is found before any work."""

from dataclasses import dataclass
from pathlib import Path

from alexnet.errors import ParamsError
from alexnet.images.inspect import ValidateConfig
from alexnet.inference.features import ExtractConfig
from alexnet.inference.metrics import EvaluateConfig
from alexnet.model.architecture import ModelConfig
from alexnet.shards.manifest import ShardConfig
from alexnet.training.schedule import TrainConfig
from pipelines.config import tree
from pipelines.registry.release import PublishConfig
from pipelines.sources.base import SourceConfig

FILE = Path("params.yaml")
PRESETS = Path("presets")


@dataclass(frozen=True)
class Params:
    """Every number that can change a result, a section a stage."""

    seed: int
    source: SourceConfig
    validate: ValidateConfig
    shard: ShardConfig
    model: ModelConfig
    train: TrainConfig
    evaluate: EvaluateConfig
    extract: ExtractConfig
    publish: PublishConfig


def load(path: Path = FILE, preset: str | None = None, variant: str | None = None) -> Params:
    """The parameters in the file, with a preset's and then a variant's partial tree laid over them.

    Raises:
        ParamsError: names the path of what is wrong.
    """
    whole = tree.read(path)
    if preset:
        change = tree.read(preset_file(preset))
        whole = tree.overlay(whole, change, f"presets.{preset}")
    variants = whole.pop("variants", {})
    if variant:
        if variant not in variants:
            raise ParamsError(f"variants: has no {variant!r}; it has {', '.join(variants) or 'none'}")
        whole = tree.overlay(whole, variants[variant], f"variants.{variant}")
    return tree.build(Params, whole, str(path))


def preset_file(name: str, folder: Path = PRESETS) -> Path:
    """Where a preset is. Raises ParamsError that lists all when there is no such."""
    path = folder / f"{name}.yaml"
    if not path.is_file():
        there = ", ".join(sorted(other.stem for other in folder.glob("*.yaml")))
        raise ParamsError(f"presets: has no {name!r}; it has {there or 'none; run from the folder that holds params.yaml'}")
    return path
