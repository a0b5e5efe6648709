"""What a run has come to: error rates beside the baselines, where the figures are, and what was published where."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from alexnet.errors import DataError
from pipelines.registry.store import Registry
from pipelines.runtime import environment
from pipelines.storage.bucket import registry_bucket

METRICS = Path("artifacts/metrics.json")
EVALUATION = Path("artifacts/evaluation")
RECEIPT = Path("artifacts/receipt.json")
PAGE = environment.LOCAL / "release" / "index.html"
_STATUS = environment.LOCAL / "status"
_ALWAYS = "fetch"  # it runs every time, to see whether the source has changed


def stages_run_since(moment: float) -> list[str]:
    """The stages that ran after a moment (seconds since the epoch), in the order in which they ended."""
    ended = sorted((path.stat().st_mtime, path.stem) for path in _STATUS.glob("*.json"))
    return [stage for at, stage in ended if at >= moment and stage != _ALWAYS]


def collect() -> dict[str, Any]:
    """Metrics, receipt and figures of the last run.

    Raises:
        DataError: nothing has been run to the end here.
    """
    try:
        metrics, receipt = (json.loads(path.read_text()) for path in (METRICS, RECEIPT))
    except FileNotFoundError as error:
        raise DataError(f"{error.filename}: not there yet; `make run` makes it") from None
    figures = sorted(str(path) for path in EVALUATION.rglob("*") if path.suffix in (".png", ".svg", ".html"))
    bucket = registry_bucket()
    where = f"{bucket}/{Registry(bucket, receipt['name']).key(receipt['version'])}"
    return {"metrics": metrics, "receipt": receipt, "figures": figures, "where": where}


def text(found: dict[str, Any], ran: list[str] | None) -> str:
    """The summary for people: error rates in percent; the fractions are in the files."""
    metrics, receipt = found["metrics"], found["receipt"]
    title = f"validation error, {metrics['images']:,} images, {metrics['classes']} classes"
    rows = [("center crop", metrics["center_crop"]), ("ten crops", metrics["ten_crop"])]
    rows += [(f"baseline: {name}", errors) for name, errors in metrics["baselines"].items()]
    figures = f"{EVALUATION}/ ({len(found['figures'])})" if found["figures"] else "none"
    lines = [
        "",
        f"{title}{'top-1':>10}{'top-5':>10}",
        *(
            f"{'  ' + name:<{len(title)}}{_percent(errors, 'top1_error')}{_percent(errors, 'top5_error')}"
            for name, errors in rows
        ),
        f"figures     {figures}",
        f"published   {receipt['name']}@{receipt['version']}, {len(receipt['files'])} files, at {found['where']}",
    ]
    if PAGE.exists():
        lines.append(f"its page    {PAGE}")
    held = receipt["held_back"]
    name = f"{receipt['name']}@{receipt['alias']}"
    lines.append(
        f"alias       {name} stays where it was: {held}"
        if held
        else f"alias       {name} is this version; `alexnet pull {name}`"
    )
    if ran is not None:
        lines.append(f"ran         {', '.join(ran)}" if ran else "nothing to do: all of it has been made before")
    return "\n".join(lines)


def _percent(errors: dict[str, float], name: str) -> str:
    return f"{errors[name]:10.2%}" if name in errors else ""


def main(arguments: list[str] | None = None) -> int:
    """The command line. Returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.cli.summary", description=__doc__)
    parser.add_argument("--since", type=Path, help="a file: say which stages ran after it was written")
    parser.add_argument("--json", action="store_true", help="all of it, for a program")
    args = parser.parse_args(arguments)
    ran = stages_run_since(args.since.stat().st_mtime) if args.since else None
    try:
        found = collect()
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(json.dumps(found | {"ran": ran}, indent=1, sort_keys=True) if args.json else text(found, ran))
    return 0


if __name__ == "__main__":
    sys.exit(main())
