"""What an evaluation finds: in evaluation/results.json every headline number with its interval, and how fast it was."""

from dataclasses import dataclass
from pathlib import Path

from alexnet.config import read_json
from alexnet.inference.metrics import VIEWS_NAMES
from alexnet.loading.config import Precision, Views
from alexnet.shards.manifest import Split
from pipelines.runtime import environment

NAME = "results.json"
THROUGHPUT = environment.LOCAL / "throughput.json"  # no output, nor in a release: those are the same bytes when made again
SPLIT_NAMES: dict[Split, str] = {"train": "training", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Estimate:
    """A value measured on images, and its 95% interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ProtocolResult:
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
    majority, ridge, variants: top-1 errors of the baselines, those of the trained variants by the center crop.
    """

    split: Split
    images: int
    classes: int
    protocols: tuple[ProtocolResult, ...]
    ensemble: tuple[ProtocolResult, ...]
    majority: Estimate
    ridge: Estimate
    variants: dict[str, Estimate]

    @classmethod
    def read(cls, path: Path) -> "Results":
        """The results in a file. Raises DataError when it is missing or of another form."""
        return read_json(cls, path, "run the evaluate stage again")

    @property
    def split_name(self) -> str:
        """Of the split, for people."""
        return SPLIT_NAMES[self.split]

    @property
    def center_crop(self) -> ProtocolResult:
        """The numbers to quote."""
        return self.protocols[0]

    @property
    def many_crops(self) -> ProtocolResult:
        """Five crops, or ten where training flips images."""
        return self.protocols[1]


@dataclass(frozen=True)
class Throughput:
    """Images per second on this machine. evaluation: of the whole, by all protocols, with reading and decoding.

    protocols: of the network alone, by each protocol; for bf16 without what is computed again in float32.
    """

    machine: str
    precision: Precision
    evaluation: float
    protocols: dict[Views, float]

    @property
    def text(self) -> str:
        """For people."""
        rates = (f"{VIEWS_NAMES[views]} {rate:,.0f}" for views, rate in self.protocols.items())
        return f"{self.evaluation:,.0f} images/s by all crops; the network alone, {self.precision}: {', '.join(rates)}"
