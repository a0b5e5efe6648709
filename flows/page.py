"""What a flow run's page shows: stages, error rates, pictures, links, the progress of training, and the message of its state.

It reads what the stages left. Nothing here may fail a run: no error of Prefect's or of a file is worth days of training.
"""

import base64
import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec
from uuid import UUID

import yaml
from prefect import get_run_logger
from prefect.artifacts import (
    create_image_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.stage import StageResult

RESULTS = Path("artifacts/evaluation/results.json")
RECEIPT = Path("artifacts/receipt.json")
PICTURES = (
    ("curves", "Loss and error of each epoch"),
    ("confusion", "Which classes are taken for which"),
    ("predictions", "Pictures, with the five likeliest classes"),
    ("kernels", "The kernels of the first layer"),
)
DOCS = {
    "the release's page": ".local/release/index.html",
    "Data Docs": ".local/data-docs/index.html",
    "what came of it": ".local/outcome.html",
    "the receipt": str(RECEIPT),
}
_PROTOCOLS = {"center": "center crop", "five": "five crops", "flipped": "five crops, flipped", "ten": "ten crops"}
_SPLITS = {"val": "validation", "test": "test"}
_TOOK = "What was made, and what it took; disk: read / written; store: received / sent"
_TRAINS = re.compile(r"train: epoch (\d+)/(\d+)(?:, step (\d+)/(\d+))?[,:] (.*)")

P = ParamSpec("P")


def harmless(function: Callable[P, Any]) -> Callable[P, None]:
    """The function with an error of its own logged instead of raised."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001 - see above
            get_run_logger().warning("the run's page lacks %s: %s", function.__name__.replace("_", " "), error)

    return call


class Training:
    """A progress artifact that follows the lines of the train stage."""

    def __init__(self) -> None:
        self._artifact: UUID | None = None
        self.percent = 0.0

    @harmless
    def progress(self, line: str) -> None:
        """Brings the artifact up to a line, if it tells of progress."""
        found = _TRAINS.match(line)
        if not found:
            return
        epoch, epochs, step, steps = (int(number) if number else None for number in found.groups()[:4])
        assert epoch is not None
        assert epochs is not None
        done = epoch if step is None or not steps else epoch - 1 + step / steps
        self.percent, said = 100 * done / epochs, f"{line.removeprefix('train: ')}"
        if self._artifact is None:
            self._artifact = UUID(str(create_progress_artifact(self.percent, key="training", description=said)))
        else:
            update_progress_artifact(self._artifact, progress=self.percent, description=said)


@harmless
def stages(results: Iterable[StageResult]) -> None:
    """A table of the stages so far."""
    rows = [stage_row(result) for result in results]
    create_table_artifact(key="stages", table=rows, description=_TOOK)


def stage_row(result: StageResult) -> dict[str, str]:
    """A stage's state and time, and what it took where it was made now; as DVC shows it from .local/timings."""
    took = result.timing

    def cell(name: str, unit: float = 1.0, digits: int = 1) -> str:
        value = took.get(name)
        return "" if value is None else f"{value / unit:,.{digits}f}"

    def both(first: str, second: str) -> str:
        return " / ".join(cell(name, 1e6, int((took[name] or 0) < 1e7)) for name in (first, second) if name in took)

    return {  # eight narrow columns: the page cuts off what is beyond 730 px
        "stage": result.stage,
        "state": result.state,
        "seconds": f"{result.seconds:,.1f}",
        "images/s": cell("images_per_second", digits=0),
        "CPU s": cell("cpu_seconds"),
        "peak MB": cell("peak_memory_bytes", 1e6, 0),
        "disk, MB": both("read_bytes", "written_bytes"),
        "store, MB": both("received_bytes", "sent_bytes"),
    }


@harmless
def error_rates(before: float | None) -> None:
    """A table of the error rates in percent, with their intervals. before: top-1 error of the release that the alias names."""
    create_table_artifact(
        key="error-rates",
        table=error_rows(_read(RESULTS), before),
        description="Errors in percent, 95% intervals; the release before by its center crop",
    )


def error_rows(results: dict[str, Any], before: float | None) -> list[dict[str, Any]]:
    """One row for each test protocol and each baseline, and one for the release of before."""
    rows = _protocol_rows(results["protocols"])
    rows += [{"what": f"baseline: {name}", "top-1 error": _percent(results[name])} for name in ("ridge", "majority")]
    if before is not None:
        rows.insert(1, {"what": "release before", "top-1 error": f"{100 * before:.2f}"})
    return rows


@harmless
def measured(release: str, protocols: list[dict[str, Any]]) -> None:
    """A table of the error rates of a release, which were measured now."""
    description = f"{release} on the present {_SPLITS[protocols[0]['split']]} images: errors in percent, 95% intervals"
    create_table_artifact(key="measured", table=_protocol_rows(protocols), description=description)


def measured_message(release: str, protocols: list[dict[str, Any]]) -> str:
    """What the state of such a run says: the error by the first protocol, the center crop."""
    first = protocols[0]
    return f"{release}: {_SPLITS[first['split']]} top-1 error {_percent(first['top1_error'])} %"


def _protocol_rows(protocols: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [
        {
            "what": _PROTOCOLS.get(one["views"], one["views"]),
            "top-1 error": _percent(one["top1_error"]),
            "top-5 error": _percent(one["top5_error"]),
        }
        for one in protocols
    ]


@harmless
def pictures() -> None:
    """Curves and pictures of the evaluation, each as an image."""
    for name, description in PICTURES:
        file = RESULTS.with_name(f"{name}.png")
        if file.exists():
            data = base64.b64encode(file.read_bytes()).decode()
            create_image_artifact(f"data:image/png;base64,{data}", key=name, description=description)


@harmless
def release() -> None:
    """What was published and what came of it, and why; where its page, the data's and the receipt are."""
    receipt = _read(RECEIPT)
    links = [f"- {what}: [{path}]({Path(path).absolute().as_uri()})" for what, path in DOCS.items() if Path(path).exists()]
    text = "\n".join([verdict(receipt), "", "On the worker:", "", *links])
    create_markdown_artifact(key="release", markdown=text, description="What was published, and what came of it")
    if rows := champion_rows(receipt):
        create_table_artifact(key="champion", table=rows, description=receipt["champion"]["reason"])


def verdict(receipt: dict[str, Any]) -> str:
    """What came of a run and why, in Markdown: which release there is, and which aliases name it."""
    name, held_back, outcome = receipt["name"], receipt["held_back"], receipt["champion"]
    if receipt["version"] is None:
        return f"**Nothing is published**: {held_back}"
    rows = [f"**{name}@{receipt['version']}** is published, {len(receipt['files'])} files.", ""]
    if held_back:
        return "\n".join([*rows, f"**It is held back**, no alias names it: {held_back}"])
    rows.append(f"- `{name}@{receipt['alias']}` names it now.")
    said = "names it now" if outcome["is_champion"] else f"**stays** at {outcome['compared_with'] or 'what it was'}"
    return "\n".join([*rows, f"- `{name}@champion` {said}: {outcome['reason']}"])


def champion_rows(receipt: dict[str, Any]) -> list[dict[str, str]]:
    """The new network and the champion on the same validation images, in percent; empty where none was compared."""
    outcome = receipt["champion"]
    found = outcome and outcome["comparison"]
    if not found:
        return []
    paired = found["paired"]
    return [
        {"what": f"{receipt['name']}@{receipt['version']}", "top-1 error": _percent(found["error"])},
        {"what": f"champion {outcome['compared_with']}", "top-1 error": _percent(found["champion_error"])},
        {"what": "difference", "top-1 error": _percent(paired["difference"])},
        {"what": "wrong by the new one only", "top-1 error": f"{paired['only_first_wrong']:,}"},
        {"what": "wrong by the champion only", "top-1 error": f"{paired['only_second_wrong']:,}"},
    ]


@harmless
def drift() -> None:
    """What changed in the data since the release that the alias names now."""
    reply = _registry("drift")
    create_markdown_artifact(key="drift", markdown=reply, description="The data since the last release; (!): far apart")


@harmless
def text(key: str, markdown: str, description: str) -> None:
    """A text in Markdown."""
    create_markdown_artifact(key=key, markdown=markdown, description=description)


def message(results: Iterable[StageResult], before: float | None) -> str:
    """What the state of a run that has ended well says."""
    made = [one.stage for one in results if one.state == "made" and one.stage != "fetch"]
    if not made:
        return "nothing changed"
    if "publish" not in made:
        return f"made {', '.join(made)}"
    try:
        receipt = _read(RECEIPT)
        error = _read(RESULTS)["protocols"][0]["top1_error"]["value"]
    except (OSError, ValueError, LookupError):
        return f"made {', '.join(made)}"
    if receipt["version"] is None:
        return f"published nothing: {receipt['held_back']}; top-1 error {error:.1%}"
    change = f"{before:.1%} -> {error:.1%}" if before is not None else f"{error:.1%}"
    return f"published {change}, {_what_came(receipt)}"


def _what_came(receipt: dict[str, Any]) -> str:
    if receipt["held_back"]:
        return f"held back: {receipt['held_back']}"
    outcome = receipt["champion"]
    return "champion" if outcome["is_champion"] else f"{receipt['alias']}, not champion: {outcome['reason']}"


def released_error() -> float | None:
    """Top-1 error of the release that the alias names now; None where there is none, or no registry answers."""
    try:
        error = json.loads(_registry("show-release", "--json"))["top1_error"]
    except (OSError, LookupError, ValueError, subprocess.SubprocessError):
        return None
    return None if error is None else float(error)


def _registry(command: str, *options: str) -> str:
    """What `alexnet COMMAND` says of the release that the alias names."""
    config = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))["publish"]
    whole = [sys.executable, "-m", "pipelines.cli.main", command, f"{config['name']}@{config['alias']}", *options]
    return subprocess.run(whole, capture_output=True, text=True, check=True).stdout


def _read(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def _percent(interval: dict[str, float]) -> str:
    return f"{100 * interval['value']:.2f} ({100 * interval['low']:.2f} to {100 * interval['high']:.2f})"
