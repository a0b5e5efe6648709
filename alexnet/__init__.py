"""AlexNet as trained in 2012: the network, its training, images and shards. Knows no YAML, DVC, Prefect, S3 or environment.

    model = alexnet.load("alexnet@latest")             # a release, fetched and checked; or a folder
    print(model.predict(["photo.jpg"])[0][0])          # the most probable class
    fc7 = model.activations(["photo.jpg"], ["fc7"])["fc7"]

Each name below is imported when it is first used (PEP 562): `import alexnet` imports neither torch nor an image codec.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alexnet.errors import DataError as DataError
    from alexnet.errors import ParamsError as ParamsError
    from alexnet.images.resize import prepare as prepare
    from alexnet.images.statistics import PixelStatistics as PixelStatistics
    from alexnet.inference.photos import Classifier as Classifier
    from alexnet.inference.photos import load as load
    from alexnet.inference.pretrained import Pretrained as Pretrained
    from alexnet.loading.dataset import ShardDataset as ShardDataset
    from alexnet.loading.loader import Loader as Loader
    from alexnet.model.architecture import ModelConfig as ModelConfig
    from alexnet.model.network import AlexNet as AlexNet
    from alexnet.shards.manifest import Manifest as Manifest
    from alexnet.training.checkpoint import Checkpoints as Checkpoints
    from alexnet.training.loop import Callbacks as Callbacks
    from alexnet.training.loop import fit as fit
    from alexnet.training.schedule import TrainConfig as TrainConfig
    from alexnet.training.trainer import Trainer as Trainer
    from alexnet.training.trainer import TrainingJob as TrainingJob

_SOURCES = {
    "AlexNet": "alexnet.model.network",
    "Callbacks": "alexnet.training.loop",
    "Checkpoints": "alexnet.training.checkpoint",
    "Classifier": "alexnet.inference.photos",
    "DataError": "alexnet.errors",
    "Loader": "alexnet.loading.loader",
    "Manifest": "alexnet.shards.manifest",
    "ModelConfig": "alexnet.model.architecture",
    "ParamsError": "alexnet.errors",
    "PixelStatistics": "alexnet.images.statistics",
    "Pretrained": "alexnet.inference.pretrained",
    "ShardDataset": "alexnet.loading.dataset",
    "TrainConfig": "alexnet.training.schedule",
    "Trainer": "alexnet.training.trainer",
    "TrainingJob": "alexnet.training.trainer",
    "fit": "alexnet.training.loop",
    "load": "alexnet.inference.photos",
    "prepare": "alexnet.images.resize",
}
__all__ = list(_SOURCES)


def __getattr__(name: str) -> Any:
    if name not in _SOURCES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_SOURCES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
