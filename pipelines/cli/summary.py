"""The result of a run: error rates beside the baselines, where the figures are, and what was published where."""

import argparse
import sys
from pathlib import Path

from alexnet.config import read_json
from alexnet.errors import DataError
from alexnet.inference.metrics import VIEWS_NAMES
from pipelines.evaluation.results import NAME, THROUGHPUT, Estimate, Results, Throughput
from pipelines.publishing.receipt import Receipt
from pipelines.registry.release import CHAMPION, version_folder
from pipelines.runtime import console, environment, timings

EVALUATION = Path("artifacts/evaluation")
RESULTS = EVALUATION / NAME
RECEIPT = Path("artifacts/receipt.json")
PAGE = environment.LOCAL / "release" / "index.html"
OUTCOME = environment.LOCAL / "outcome.html"
_STATUS = environment.LOCAL / "status"
_ALWAYS_RUN = "fetch"  # the stage that looks whether the source has changed
_ADVICE = "`make run` makes it"


def stages_run_since(moment: float) -> list[str]:
    """The stages that ran after a moment (seconds since the epoch), in the order in which they ended."""
    ended = sorted((path.lstat().st_mtime, path.stem) for path in _STATUS.glob("*.json"))
    return [stage for at, stage in ended if at >= moment and stage != _ALWAYS_RUN]


def summary() -> str:
    """The last run's results, error rates in percent. Raises DataError: no run has ended in this folder."""
    results = read_json(Results, RESULTS, _ADVICE)
    receipt = read_json(Receipt, RECEIPT, _ADVICE)
    figures = len(list(EVALUATION.rglob("*.png")))
    return "\n".join(
        [
            "",
            *error_rates(results),
            *_throughput(),
            f"figures     {EVALUATION}/ ({figures})",
            *_published(receipt),
            *advice(results),
        ]
    )


def error_rates(results: Results) -> list[str]:
    """A table: the center crop and many crops, those of an ensemble, the baselines and what was trained alike."""
    title = f"{results.split_name} error, {results.images:,} images, {results.classes} classes"
    rows: list[tuple[str, Estimate, Estimate | None]] = [
        *((VIEWS_NAMES[row.views], row.top1_error, row.top5_error) for row in results.protocols[:2]),
        *((f"ensemble, {VIEWS_NAMES[row.views]}", row.top1_error, row.top5_error) for row in results.ensemble[:2]),
        ("baseline: majority", results.majority, None),
        ("baseline: ridge", results.ridge, None),
        *((f"trained alike: {name}", error, None) for name, error in results.variants.items()),
    ]
    return [
        f"{title}{'top-1':>10}{'95% interval':>18}{'top-5':>10}",
        *(f"{'  ' + name:<{len(title)}}{_cells(top1)}{f'{top5.value:10.2%}' if top5 else ''}" for name, top1, top5 in rows),
    ]


def advice(results: Results) -> list[str]:
    """What to type next."""
    program = ".venv/bin/alexnet"
    lines = [
        (f"{program} predict PHOTO", "the most probable classes of a picture"),
        (f"{program} explain PHOTO", "a page: the picture in every layer of the network"),
        (f"{program} claims --scale smoke", "what each idea of the paper is worth: trained with and without it"),
        (f"{program} use folder", "your own photographs; then ALEXNET_SOURCE=PHOTOS make run"),
    ]
    if results.many_crops.views != "ten":  # it was trained without flips
        lines.append((f"{program} use imagenette", "photographs, with flips, color noise and ten crops; then make run"))
    return [f"{'' if row else 'try next':12}{each:41}{what}" for row, (each, what) in enumerate(lines)]


def _published(receipt: Receipt) -> list[str]:
    alias, held_back = f"{receipt.name}@{receipt.alias}", receipt.held_back
    if receipt.version is None:
        return [f"published   nothing: {held_back}"]
    where = f"s3://{environment.store().registry}/{version_folder(receipt.name, receipt.version)}"
    return [
        f"published   {receipt.name}@{receipt.version}, {len(receipt.files)} files, at {where}",
        *([f"its page    {PAGE}"] if PAGE.exists() else []),
        f"alias       {alias} stays where it was: {held_back}"
        if held_back
        else f"alias       {alias} is this version; `alexnet pull {alias}`",
        *_champion(receipt),
    ]


def _champion(receipt: Receipt) -> list[str]:
    if receipt.champion is None:
        return []
    state = "is this version" if receipt.champion.is_champion else "stays where it was"
    page = [f"            more in {OUTCOME}"] if OUTCOME.exists() else []
    return [f"champion    {receipt.name}@{CHAMPION} {state}: {receipt.champion.reason}", *page]


def _throughput() -> list[str]:
    if not THROUGHPUT.exists():
        return []
    rate = read_json(Throughput, THROUGHPUT, _ADVICE).evaluation
    return [f"throughput  {rate:,.0f} images/s by all crops, reading and decoding included"]


def _with_time(stage: str) -> str:
    seconds = timing.seconds if (timing := timings.last(stage)) else None
    return stage if seconds is None else f"{stage} {seconds:.0f} s" if seconds < 100 else f"{stage} {seconds / 60:.0f} min"


def _cells(estimate: Estimate) -> str:
    return f"{estimate.value:10.2%}{f'{100 * estimate.low:.2f} to {estimate.high:.2%}':>18}"


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.cli.summary", description=__doc__)
    parser.add_argument("--since", type=Path, help="a file: name the stages that ran after it was written")
    args = parser.parse_args(arguments)
    try:
        print(summary())
        ran = stages_run_since(args.since.stat().st_mtime) if args.since else []
    except (DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if args.since:
        print(
            f"ran         {', '.join(map(_with_time, ran))}" if ran else "nothing to do: nothing has changed since the last run"
        )
    return 0


if __name__ == "__main__":
    sys.exit(console.until_unread(main))
