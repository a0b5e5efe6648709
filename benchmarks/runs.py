"""What whole runs came to, as README says it: error rates with their intervals, and what making them took.

    python -m benchmarks.runs NAME       # of the finished run in this folder, into benchmarks/runs/NAME.json; then README
    python -m benchmarks.runs            # README alone, from the committed records

README's picture of predictions is that of `folder`. `digits` is the run whose dvc.lock is committed: a test compares its errors
with the digest of metrics.json there.
"""

import argparse
import csv
import io
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from alexnet.config import read_json, to_json
from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from alexnet.shards.manifest import Manifest
from benchmarks.report import README
from pipelines.cli import summary
from pipelines.evaluation.results import SPLIT_NAMES, Estimate, Results
from pipelines.runtime import environment, timings
from tools.blocks import replace_block

PREDICTIONS = README.parent / "docs" / "predictions.webp"
RECORDS = Path(__file__).parent / "runs"
TITLES = {
    "digits": "`digits`, as shipped: scanned digits",
    "folder": "`folder`: photographs of clothes, the ten-class subset of the Clothing dataset (CC0), in its own splits",
}


@dataclass(frozen=True)
class Took:
    """Of a stage, or of all together. peak_memory_bytes: of the largest process; None: it was not measured."""

    seconds: float
    cpu_seconds: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class Run:
    """A finished run. images: that it was trained on. took: by stage. machine: as `environment.machine` names it."""

    machine: str
    images: int
    epochs: int
    results: Results
    took: dict[str, Took]

    @property
    def cpu_minutes(self) -> float:
        """Of all stages."""
        return sum(each.cpu_seconds for each in self.took.values()) / 60

    @property
    def peak_gigabytes(self) -> float:
        """Of the largest process."""
        return max(each.peak_memory_bytes or 0 for each in self.took.values()) / 1e9


def finished(artifacts: Path) -> Run:
    """The run of this folder. Raises DataError: it is not finished."""
    shards = Manifest.read(artifacts / "manifest.json").splits["train"]
    with (artifacts / "history.csv").open(encoding="utf-8", newline="") as file:
        epochs = len(list(csv.reader(file))) - 1
    stages = sorted(path.stem for path in timings.FOLDER.glob("*.json"))
    took = {stage: _took(stage) for stage in stages}
    results = Results.read(summary.RESULTS)
    return Run(environment.machine(), sum(shard.samples for shard in shards), epochs, results, took)


def _took(stage: str) -> Took:
    timing = timings.last(stage)
    if timing is None:
        raise DataError(f"{timings.FOLDER}/{stage}.json: is damaged; `dvc repro --force {stage}` writes it again")
    return Took(**{name: getattr(timing, name) for name in Took.__annotations__})


def read_records() -> dict[str, Run]:
    """The committed records, in the order in which README shows them."""
    return {name: read_json(Run, RECORDS / f"{name}.json", f"`python -m benchmarks.runs {name}` writes it") for name in TITLES}


def screen(run: Run) -> str:
    """How the shipped run ends, and what it takes."""
    shown = "\n".join(["$ make run", "...", *summary.error_rates(run.results), "...", *summary.advice(run.results)])
    took = f"{run.cpu_minutes:.0f} minutes of CPU time and {run.peak_gigabytes:.1f} GB of memory"
    quote = "The error to quote is the center crop's,\nwhich was decided before any result was seen."
    return f"```\n{shown}\n```\n\nIt takes {took} ({run.machine}). {quote}"


def show_predictions(png: Path) -> None:
    """Writes a run's picture of predictions as README has it."""
    file = io.BytesIO()
    with Image.open(png) as image:
        image.convert("RGB").resize((720, 720 * image.height // image.width)).save(file, "WEBP", quality=80, method=6)
    atomic_write_bytes(PREDICTIONS, file.getvalue())


def table(runs: dict[str, Run]) -> str:
    """A row a run."""
    lines = ["| run | trained on | top-1 error, 95% interval | ridge on thumbnails | CPU minutes |", "|---|---|---|---|---|"]
    return "\n".join(lines + [_row(TITLES[name], run) for name, run in runs.items()])


def _row(title: str, run: Run) -> str:
    error = run.results.center_crop.top1_error
    return (
        f"| {title} | {run.images:,} images, {run.results.classes} classes, {run.epochs} epochs | {_percent(error)} "
        f"({100 * error.low:.1f} to {_percent(error, 'high')}), {run.results.images:,} {SPLIT_NAMES[run.results.split]} images "
        f"| {_percent(run.results.ridge)} | {run.cpu_minutes:.0f} |"
    )


def _percent(error: Estimate, which: str = "value") -> str:
    return f"{getattr(error, which):.1%}"


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.runs", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", nargs="?", choices=TITLES, help="record the finished run of this folder under this name")
    name = parser.parse_args(arguments).name
    if name:
        atomic_write_bytes(RECORDS / f"{name}.json", to_json(finished(Path("artifacts"))))
    if name == "folder":
        show_predictions(Path("artifacts/evaluation/predictions.png"))
    runs = read_records()
    replace_block(README, "shipped", screen(runs["digits"]))
    replace_block(README, "runs", table(runs))


if __name__ == "__main__":
    main()
