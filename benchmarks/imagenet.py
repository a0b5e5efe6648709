"""What a run on ImageNet takes, computed from the committed results: a part of docs/operations.md.

No run on ImageNet was measured. Each row is a count divided by a rate, and names the result that has the rate.
"""

import textwrap
from dataclasses import dataclass
from typing import Any

from pipelines.config import params

ARCHIVES_GB = 144  # training, validation and development kit
DISK_MB_PER_SECOND = 250  # an assumption
CORES = 16
DOLLARS_PER_HOUR = 4  # an assumption: a machine with one such GPU


@dataclass(frozen=True)
class Step:
    """A part of a run; `counted` says whether it is a part of the sum, or another way to see one that is."""

    name: str
    arithmetic: str
    seconds: float
    counted: bool = True


def steps(results: dict[str, Any]) -> list[Step]:
    """The parts of a run on one H200, in their order."""
    given = params.load(preset="imagenet")
    train, val = given.validate.counts.train_images or 0, given.validate.counts.val_images or 0
    images, passes = train + val, f"{given.train.epochs} epochs x {train:,} images"
    check, resize = results["validate"]["cpu_ms_per_image"]["ours"], results["prep"]["speed"]["cpu_ms_per_image"]["ours"]
    kilobytes, scale = results["prep"]["images"]["mean_bytes"] / 1000, results["prep"]["scale"]
    (batch, step), load = _gpu_step(results), results["train_epoch-nvidia-h200"]["images_per_second"]["load"]
    judge = {name: results[name]["images_per_second"]["ours, bf16"] for name in ("evaluate", "evaluate-nvidia-h200")}
    return [
        Step(
            "read the archives",
            f"{ARCHIVES_GB} GB at {DISK_MB_PER_SECOND} MB/s, an assumption",
            ARCHIVES_GB * 1000 / DISK_MB_PER_SECOND,
        ),
        Step(
            f"validate and shard, {CORES} cores",
            f"{images:,} images of {kilobytes:.0f} kB x ({check:.2f} ms (`validate`) + {resize:.2f} ms (`prep`)) / {CORES}",
            images * (check + resize) / 1000 / CORES,
        ),
        Step("index, suite, shuffle", f"`prep`, measured for {scale['rows']:,} rows", scale["seconds_in_all"]),
        Step(
            "train on one H200, if the loader is never waited for",
            f"{passes} / {step:,} images/s (`train_step-nvidia-h200`, batch {batch})",
            given.train.epochs * train / step,
            counted=False,
        ),
        Step(
            "the same, if 16 cores decode",
            f"{passes} / {load:,} images/s (`train_epoch-nvidia-h200`, the loader alone)",
            given.train.epochs * train / load,
        ),
        Step(
            "ten-crop evaluation on two CPU cores, bf16",
            f"{val:,} images / {judge['evaluate']:.1f} images/s (`evaluate`)",
            val / judge["evaluate"],
            counted=False,
        ),
        Step(
            "the same on an H200, bf16",
            f"{val:,} images / {judge['evaluate-nvidia-h200']:,.0f} images/s (`evaluate-nvidia-h200`)",
            val / judge["evaluate-nvidia-h200"],
        ),
    ]


def text(results: dict[str, Any]) -> str:
    """Markdown: the steps, their sum, and what it costs."""
    given = params.load(preset="imagenet")
    found = steps(results)
    train = next(step.seconds for step in found if step.name.endswith("cores decode"))
    total = sum(step.seconds for step in found if step.counted)
    loaders = results["input"]["one_worker"]["loaders"]
    core = loaders.get("ours-whole", loaders["ours"])["samples_per_second"]  # whole images, which a GPU crops
    cores = _gpu_step(results)[1] / core
    whole = results["train_epoch-nvidia-h200"]["images_per_second"]["ours"]
    epochs = duration(given.train.epochs * (given.validate.counts.train_images or 0) / whole)
    rows = [f"| {step.name} | {step.arithmetic} | {duration(step.seconds)} |" for step in found]
    sums = (
        f"In all {duration(total)}, {duration(train)} of it on the GPU. To keep that GPU busy takes {cores:.0f} cores that "
        f"decode {core:,} images/s each (`input`). The rates were measured separately for each part. The last measurement of "
        f"a whole epoch, {whole:,} images/s (`train_epoch-nvidia-h200`; {epochs} for {given.train.epochs} epochs), is of "
        "earlier code, which was slower on the host. No run on ImageNet itself or on two GPUs has been measured."
    )
    cost = (
        f"At {DOLLARS_PER_HOUR} dollars an hour for a machine with one such GPU, that is {DOLLARS_PER_HOUR * total / 3600:.0f} "
        f"dollars; a further run on the same shards takes {duration(train)}, {DOLLARS_PER_HOUR * train / 3600:.0f} dollars."
    )
    return "\n".join(["| step | arithmetic | takes |", "|---|---|---|", *rows, "", filled(sums), "", filled(cost)])


def filled(paragraph: str) -> str:
    """In lines of the documents' width; those of an item of a list are indented."""
    indent = "  " * paragraph.startswith("- ")
    return textwrap.fill(paragraph, 139, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False)


def duration(seconds: float) -> str:
    """In the unit that people would use."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _gpu_step(results: dict[str, Any]) -> tuple[int, int]:
    """Batch, and images a second of the steps alone on an H200: of the preset's batch, or else of the first measured one."""
    batch = params.load(preset="imagenet").train.batch_size
    rows = [row for row in results["train_step-nvidia-h200"]["rows"] if row["precision"] == "bf16"]
    row = min(rows, key=lambda row: bool(row["batch"] != batch))
    return row["batch"], round(row["images_per_second"]["ours"])
