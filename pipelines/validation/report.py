"""validation.json: the validate stage's report on the source. Publish reads it for its gate, the model card and the page."""

import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from alexnet.config import read_json, to_json
from alexnet.files.atomic import atomic_write_bytes
from alexnet.images.inspect import Fault, Policy
from alexnet.shards.manifest import Split


@dataclass(frozen=True)
class PerClass:
    """The number of images of the smallest class and of the largest; 0 where a split has none."""

    min: int
    max: int


@dataclass(frozen=True)
class SplitCounts:
    """The images of a split that are used, and the number of classes they are of."""

    images: int
    classes: int
    per_class: PerClass


@dataclass(frozen=True)
class FaultCounts:
    """The images that have one kind of fault: how many, the keys of the first of them, and in `note` where the others are."""

    policy: Policy
    meaning: str
    images: int
    keys: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class Rule:
    """The result of one expectation.

    about: a kind of fault, every row of the index, or the counts by class. unexpected: the number of rows that break it.
    keys: of the first of these, keys of images or wnids of classes; `note` says where the others are.
    """

    about: Literal["faults", "images", "classes"]
    rule: str
    severity: Literal["critical", "warning", "info"]
    success: bool
    unexpected: int
    keys: tuple[str, ...]
    observed: int | None
    note: str


@dataclass(frozen=True)
class ValidationReport:
    """Counts, faults and rules. It holds no times and no paths of this machine: equal sources have equal reports.

    success: no rule of critical severity is broken. data_docs: the key of their front page in the data bucket. left_out: files
    of the source that are no images by their names, by suffix.
    """

    source: str
    success: bool
    images: int
    used: int
    splits: dict[Split, SplitCounts]
    faults: dict[Fault, FaultCounts]
    rules: tuple[Rule, ...]
    index_sha256: str
    data_docs: str = ""
    left_out: dict[str, int] = field(default_factory=dict)

    def broken_rules(self) -> list[Rule]:
        """The rules of critical severity that do not hold."""
        return [rule for rule in self.rules if rule.severity == "critical" and not rule.success]

    def digest(self) -> str:
        """SHA-256 of everything but `data_docs`, whose key it names."""
        tree = asdict(self)
        del tree["data_docs"]
        return hashlib.sha256(json.dumps(tree, sort_keys=True).encode()).hexdigest()

    def write(self, path: Path) -> None:
        """Writes sorted JSON: equal reports are equal bytes."""
        atomic_write_bytes(path, to_json(self))

    @classmethod
    def read(cls, path: Path) -> "ValidationReport":
        """The report in a file. Raises DataError when it is missing or not a report."""
        return read_json(cls, path, "run the validate stage again")
