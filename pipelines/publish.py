"""The publish stage: model, card, metrics, features and digests into the registry; then aliases move, behind a gate.

This stage alone reads what the registry holds, and runs the champion: where an alias points is outside of what DVC sees, so
that a stage whose outputs depended on it would be kept when it moved, and the version of a release, which is its content,
would depend on when it was made. So the outcome is not in the release but beside it: in the receipt, the history of the alias
and the page of the promotion. `persist` on the receipt keeps DVC from restoring one instead of publishing.
"""

import argparse
import io
import shutil
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from alexnet.config import read_json, to_json
from alexnet.errors import DataError
from alexnet.files.atomic import atomic_folder, atomic_write_bytes
from alexnet.files.strict import open_regular
from alexnet.inference.metrics import Metrics
from alexnet.shards.manifest import Manifest
from pipelines.config import params
from pipelines.config.params import Params
from pipelines.evaluation import results
from pipelines.evaluation.results import Results
from pipelines.publishing import bom, provenance
from pipelines.publishing.card import Facts, render_card
from pipelines.publishing.page import render_outcome, render_page
from pipelines.publishing.promotion import Candidate, Promotion, gate, settle, version_before
from pipelines.publishing.receipt import Receipt
from pipelines.registry import signing
from pipelines.registry.client import client_of
from pipelines.registry.release import CHAMPION, PublishConfig, Release, scan
from pipelines.registry.store import Registry
from pipelines.runtime import console, environment, streams, timings
from pipelines.runtime.errors import Unreachable
from pipelines.storage.bucket import registry_bucket
from pipelines.validation.report import ValidationReport

_FOLDER = environment.LOCAL / "release"  # of the last release, for people to look at
OUTCOME = environment.LOCAL / "outcome.html"  # what came of it
_LOCK = Path("dvc.lock")
_STORY = Path("docs/story.html")  # as committed: what the claims measured
_LISTING = "artifacts/listing.json"
_PICTURES = (".png", ".svg", ".html")
_EXPERIMENT = "an experiment moves no alias; `dvc exp apply` it and `make run`, or `alexnet promote` it"
_DECLINED = "an experiment, or ALEXNET_PUBLISH=no; `dvc exp apply` it and `make run`, or set ALEXNET_PUBLISH=yes"


@dataclass(frozen=True)
class Purpose:
    """purpose.json of the fetch stage: whether to publish, and whether DVC runs an experiment."""

    publish: bool
    experiment: bool


@dataclass(frozen=True)
class Inputs:
    """What earlier stages made."""

    model: Path
    metrics: Path
    evaluation: Path
    probe: Path
    features: Path
    source: Path
    index: Path
    validation: Path
    manifest: Path
    pixels: Path
    history: Path
    training: Path


def main() -> None:
    """Reads the arguments and publishes."""
    parser = argparse.ArgumentParser(prog="python -m pipelines.publish", description=__doc__)
    parser.add_argument("--model", type=Path, required=True, help="folder of the trained network")
    parser.add_argument("--metrics", type=Path, required=True, help="JSON of the error rates")
    parser.add_argument("--evaluation", type=Path, required=True, help="folder of predictions, tables, pictures")
    parser.add_argument("--probe", type=Path, required=True, help="folder of the probe stage")
    parser.add_argument("--features", type=Path, required=True, help="Parquet of a layer's output")
    parser.add_argument("--source", type=Path, required=True, help="JSON of the fetch stage: what the source was taken for")
    parser.add_argument("--index", type=Path, required=True, help="Parquet of the validate stage: a row for every image")
    parser.add_argument("--validation", type=Path, required=True, help="JSON of the validate stage")
    parser.add_argument("--manifest", type=Path, required=True, help="the shards that were trained on")
    parser.add_argument("--pixels", type=Path, required=True, help="NPZ of the training set's pixel statistics")
    parser.add_argument("--history", type=Path, required=True, help="CSV of the training")
    parser.add_argument("--training", type=Path, required=True, help="JSON of the train stage: the machine")
    parser.add_argument("--purpose", type=Path, required=True, help="JSON of the fetch stage: whether to publish")
    parser.add_argument("--receipt", type=Path, required=True, help="JSON to write: what was published")
    given = vars(parser.parse_args())
    receipt, purpose = given.pop("receipt"), given.pop("purpose")
    asked = read_json(Purpose, purpose, "run the fetch stage again")
    if asked.publish:
        publish(Inputs(**given), receipt, experiment=asked.experiment)
    else:
        decline(receipt)


def publish(inputs: Inputs, receipt_path: Path, experiment: bool = False) -> None:
    """Publishes what earlier stages made, and writes the receipt: equal content, equal receipt. Experiments move no alias."""
    given, metrics = params.load(), Metrics.read(inputs.metrics)
    config = given.publish
    registry = Registry(registry_bucket(), config.name)
    release, folder = make_release(inputs, given), _FOLDER
    streams.speak_of(f"{config.name}@{release.version}")
    signature = signing.sign_release(release)
    written: list[str] = []
    with console.progress(release.total_bytes, "publish", "B") as advance:

        def uploaded(path: str) -> None:
            written.append(path)
            advance(release.files[path].bytes)

        is_new = registry.publish(release, folder, signature, uploaded)
    if written and not is_new:
        console.say(f"publish: was damaged in the registry, and uploaded again: {', '.join(sorted(written))}")
    where = f"{registry.bucket}/{registry.key(release.version)}"
    what = f"{config.name}@{release.version}, {len(release.files)} files, {release.total_bytes / 1e6:,.1f} MB"
    state = "published" if is_new else "was published already:"
    console.say(f"publish: {state} {what}, {'signed' if signature else 'not signed'}, at {where}")
    console.say(f"publish: its page: {folder / 'index.html'}")
    drifted = _drift(registry, config.alias, release, inputs)
    held_back = _EXPERIMENT if experiment else gate(config, metrics, ValidationReport.read(inputs.validation))
    outcome = None
    if held_back:
        console.say(f"publish: {config.name}@{config.alias} and {CHAMPION} stay where they are: {held_back}")
    else:
        alias = registry.move(config.alias, release)
        before = f" (before: {alias.previous})" if alias.previous else ""
        console.say(f"publish: {config.name}@{config.alias} is {alias.version}{before}")
        candidate = Candidate(release, inputs.model, Manifest.read(inputs.manifest), given.evaluate.batch_size)
        outcome = settle(registry, candidate, config.margin)
        console.say(f"publish: {config.name}@{CHAMPION} {'is it' if outcome.is_champion else 'stays'}: {outcome.reason}")
    receipt = _write_receipt(receipt_path, config, release, held_back, outcome)
    atomic_write_bytes(OUTCOME, render_outcome(receipt, config.margin, drifted, timings.last("train")).encode())
    console.say(f"publish: what came of it: {OUTCOME}")


def _drift(registry: Registry, alias: str, release: Release, inputs: Inputs) -> str:
    """What changed in the data since the release that an alias points at, as Markdown."""
    from pipelines.validation.drift import FILES, Data, drift, markdown  # pandas takes a second to import

    before = version_before(registry.alias(alias), release)
    if before is None:
        return "There is no previous release."
    try:
        client, reference = client_of(f"{release.name}@{before}")
        rows = drift(Data(*client.pull_files(reference, FILES)), Data(inputs.index, inputs.pixels))
    except Unreachable:
        raise
    except DataError as error:
        return f"Not compared: {error}"
    return markdown(rows) if rows else f"The images, their classes and their splits are those of {before}."


def decline(receipt_path: Path) -> None:
    """Writes the receipt of a run that publishes nothing."""
    console.say(f"publish: nothing: {_DECLINED}")
    _write_receipt(receipt_path, params.load().publish, None, _DECLINED, None)


def _write_receipt(
    path: Path, config: PublishConfig, release: Release | None, held_back: str | None, outcome: Promotion | None
) -> Receipt:
    files = {name: file.sha256 for name, file in release.files.items()} if release else {}
    version = release.version if release else None
    receipt = Receipt(config.name, version, files, config.alias, held_back, outcome)
    atomic_write_bytes(path, to_json(receipt))
    return receipt


def make_release(inputs: Inputs, given: Params) -> Release:
    """Lays out everything that is published in .local/release; equal inputs are equal bytes."""
    with atomic_folder(_FOLDER) as folder:
        _copy_all(inputs, folder)
        if given.publish.exports:
            from pipelines.publishing.export import export

            export(inputs.model, folder, given.publish.exports)
        made = provenance.of_checkout()
        (folder / provenance.NAME).write_bytes(to_json(made))
        validation, digests = (
            ValidationReport.read(inputs.validation),
            {path: file.sha256 for path, file in scan(folder).items()},
        )
        if validation.index_sha256 != digests["index.parquet"]:
            raise DataError(f"{inputs.index}: is not the index that {inputs.validation} is about; run the validate stage again")
        facts = Facts(
            name=given.publish.name,
            params=given,
            manifest=Manifest.read(inputs.manifest),
            results=Results.read(inputs.evaluation / results.NAME),
            validation=validation,
            digests=digests,
            made=made,
            trained_on=read_json(environment.TrainedOn, inputs.training, "run the train stage again"),
        )
        (folder / bom.NAME).write_bytes(bom.render_bom(facts))
        card = render_card(facts, folder)
        (folder / "README.md").write_text(card, encoding="utf-8")
        (folder / "index.html").write_text(render_page(card, facts, folder), encoding="utf-8")
        return Release.from_folder(given.publish.name, folder)


def _copy_all(inputs: Inputs, folder: Path) -> None:
    from alexnet.inference import transforms

    files = {
        "transforms.py": Path(transforms.__file__),
        "metrics.json": inputs.metrics,
        "features.parquet": inputs.features,
        "source.json": inputs.source,
        "index.parquet": inputs.index,
        "validation.json": inputs.validation,
        "shards.json": inputs.manifest,
        "pixels.npz": inputs.pixels,
        "history.csv": inputs.history,
        "training.json": inputs.training,
        "params.yaml": params.FILE,
    }
    files |= {_STORY.name: _STORY} if _STORY.exists() else {}
    files |= {path.name: path for path in sorted(inputs.model.iterdir())}
    for path in sorted([*inputs.evaluation.iterdir(), *inputs.probe.iterdir()]):
        files[f"{'pictures' if path.suffix in _PICTURES else 'evaluation'}/{path.name}"] = path
    for name, path in files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        with open_regular(path) as file, target.open("wb") as copy:
            shutil.copyfileobj(file, copy)
    if _LOCK.exists():
        (folder / _LOCK.name).write_text(lineage(_LOCK.read_text(encoding="utf-8")), encoding="utf-8")


def lineage(lock: str) -> str:
    """dvc.lock without what would differ where the same images are made into the same network.

    Those are the publish stage, whose entry is about the release before this one, and the listing of the source's times.
    """
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    tree = yaml.load(lock)
    tree["stages"] = {name: stage for name, stage in sorted(tree["stages"].items()) if name != "publish"}
    for stage in tree["stages"].values():
        for entries in (stage.get("deps", []), stage.get("outs", [])):
            entries[:] = [entry for entry in entries if entry["path"] != _LISTING]
    text = io.StringIO()
    yaml.dump(tree, text)
    return text.getvalue()


if __name__ == "__main__":
    console.run("publish", main)
