"""evaluation/results.json: every headline number with its interval, by the protocols that follow the training."""

from dataclasses import dataclass
from pathlib import Path

from alexnet.config import read_json
from alexnet.loading.config import Views
from alexnet.shards.manifest import Split

NAME = "results.json"
SPLIT_NAMES: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Estimate:
    """A value measured on images, and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Result:
    """What one protocol gives. Errors are fractions, the log loss is in nats."""

    views: Views
    top1_error: Estimate
    top5_error: Estimate
    log_loss: Estimate
    calibration_error: float


@dataclass(frozen=True)
class Results:
    """split: test where the source has one, else val.

    protocols: the center crop, whose errors are the ones to quote, then many crops, then what is shown beside them.
    ensemble: the same of this network averaged with those of `evaluate.ensemble`; empty where that names none.
    """

    split: Split
    images: int
    classes: int
    protocols: tuple[Result, ...]
    ensemble: tuple[Result, ...]
    majority: Estimate
    ridge: Estimate

    @classmethod
    def read(cls, path: Path) -> "Results":
        """The results in a file. Raises DataError when it is missing or of another form."""
        return read_json(cls, path, "run the evaluate stage again")

    @property
    def split_name(self) -> str:
        """Of the split, for people."""
        return SPLIT_NAMES[self.split]

    @property
    def center_crop(self) -> Result:
        """The numbers to quote."""
        return self.protocols[0]

    @property
    def many_crops(self) -> Result:
        """Five crops, or ten where training flips images."""
        return self.protocols[1]
