"""params.yaml as one frozen tree. Every stage reads all of it, so that a mistake anywhere is found before any work."""

from dataclasses import dataclass
from pathlib import Path

from alexnet.errors import ParamsError
from alexnet.evaluate import EvaluateConfig
from alexnet.features import ExtractConfig
from alexnet.images import ValidateConfig
from alexnet.model import ModelConfig
from alexnet.shards import ShardConfig
from alexnet.train import TrainConfig
from pipelines import tree
from pipelines.release import PublishConfig
from pipelines.sources import SourceConfig

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
        change = tree.read(PRESETS / f"{preset}.yaml")
        whole = tree.overlay(whole, change, f"presets.{preset}")
    variants = whole.pop("variants", {})
    if variant:
        if variant not in variants:
            raise ParamsError(f"variants: has no {variant!r}; it has {', '.join(variants) or 'none'}")
        whole = tree.overlay(whole, variants[variant], f"variants.{variant}")
    return tree.build(Params, whole, str(path))
