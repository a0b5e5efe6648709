"""The arguments and the help of the commands for released models."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

PLACES = """\
The registry is the bucket in ALEXNET_REGISTRY (ALEXNET_BUCKET), reached as the AWS variables say, or that of the local stack.
With ALEXNET_VERIFY_KEY set to a public key's file (Ed25519 or P-256), only what is signed by it is taken.
What was fetched is kept in ALEXNET_REGISTRY_CACHE, ~/.cache/alexnet unless set."""
_MODEL = f"""\
MODEL is NAME@ALIAS or NAME@VERSION in the registry, s3://BUCKET/NAME@ALIAS, s3://BUCKET/NAME/versions/VERSION, or a folder.
{PLACES}"""
_MOVE = f"""\
--json: {{name, alias, version, previous, number, action, who, at, reason, manifest_sha256, before_sha256, nonce}}
The move is recorded for good, with its time and who made it: ALEXNET_WHO, or this user and machine. The record is signed by the
private key whose file ALEXNET_SIGNING_KEY names, if it is set.
{PLACES}"""
_PULL = f"""\
  alexnet pull                                   alexnet@latest, into the cache
  alexnet pull alexnet@4fe4230fd51a6830 --to m   that version, into the folder m

--json: {{name, version, folder, bytes}}
{_MODEL}"""
_VERIFY = """\
  alexnet verify m        with ALEXNET_VERIFY_KEY set, its signature too

--json: {name, version, signed_by}, the last null where no key is set"""
_RELEASES = f"""\
  alexnet releases        date (UTC), top-1 error by the center crop with its 95% interval, size, git commit (+: files differed
                          from it), the keys that signed it, aliases

  alexnet releases --verify --repair
                          compares every object with its digest, and mends: files from --from DIR, .local/release, artifacts
                          and the client's cache; manifests, aliases and moves from what else tells them; signatures of what
                          those folders hold, by the key in ALEXNET_SIGNING_KEY. A folder of files without a manifest is
                          published by that, if it is whole: to withdraw a version, remove all of it

--json with --verify: [{{key, fault, mended}}], without
--json: {{releases: [as `show-release` gives them], aliases: {{ALIAS: {{version, previous}}}}}}
{PLACES}"""
_RELEASE = f"""\
  alexnet show-release alexnet@latest

--json: {{name, version, published, aliases, top1_error, top1_interval, top5_error, baselines: {{NAME: top-1 error}}, commit,
bytes, signed_by, where, files: {{PATH: {{bytes, sha256}}}}}}
Errors are fractions by the center crop, null where not known; `published` is UTC; `signed_by` lists the keys whose signatures
are there, `alexnet verify` checks them.
{PLACES}"""
_TRACE = f"""\
  alexnet trace alexnet@latest                   every byte of shards and source is read where it is at hand
  alexnet trace alexnet@latest --quick           shards by size, the source not at all
  alexnet trace alexnet@latest --image 0_17      where that image comes from, and the shard it is in

A line a link: release, code, lineage, model, index, shards, source, validation; each `right`, `wrong` (also where the release
was made from changed code or data), or `absent`: what it names is not at hand here. The exit status is 1 if one is wrong.
Run it in a checkout to compare the code with its commit. The source is looked for as `make run` does, with ALEXNET_SOURCE.
--json: {{name, version, links: [{{name, state, about, files: {{PATH: SHA256}}}}], image: the row of the index with its shard}}
{_MODEL}"""
_PROMOTE = f"""\
  alexnet promote alexnet@latest                                            to be the champion
  alexnet promote alexnet@4fe4230fd51a6830 --reason 'new classes'
  alexnet promote alexnet@4fe4230fd51a6830 --alias latest

`publish` moves champion only to a model that is not worse, see docs/releases.md; this moves any alias to any version.
{_MOVE}"""
_ROLLBACK = f"""\
  alexnet rollback alexnet@champion --reason 'takes birds for planes'

{_MOVE}"""
_HISTORY = f"""\
  alexnet history                    of every alias, the newest move last
  alexnet history alexnet@champion

--json: [{{alias, move: {{version, manifest_sha256, previous, number, action, who, at, reason, before_sha256, nonce}},
signed_by, faults}}]
A move that was changed, left out or is not signed by ALEXNET_VERIFY_KEY is named on standard error, and the exit status is 1.
{PLACES}"""
_DRIFT = f"""\
  alexnet drift                      the present data, artifacts/index.parquet, beside that of alexnet@latest

A distance is of two distributions, 0 the same, 1 nothing in common; marked (!) from 0.1 on. Only images that are used count.
--json: {{model, rows: [{{quantity, before, now, distance, note, notable}}]}}; no rows where the images are the same
{PLACES}"""
_PREDICT = f"""\
  alexnet predict photo.jpg                      with alexnet@latest
  alexnet predict holiday/ 'more/*.png'          all images below a folder, all that fit a pattern
  curl ADDRESS | alexnet predict - --json        from standard input, for a program

--json: [{{image, views, classes: [{{label, wnid, name, probability}}]}}], the most probable class first
A photograph that does not decode is named on standard error and left out, and the exit status is 1.
{_MODEL}"""
_FEATURES = f"""\
  alexnet features photo.jpg                                     the numbers of fc7
  alexnet features holiday/ --layer conv5.pool --layer fc7.relu --out f.npz

fc7 is a layer's sum of weighted inputs; fc7.relu, conv1.lrn, conv5.pool and such are what follows in the layer.
Text: PATH, LAYER, numbers, separated by tabs. With --out, shapes instead of numbers, and in FILE.npz `images`, the paths, and
by the name of every LAYER an array whose rows are the images.
--json: [{{image, features: {{LAYER: nested numbers, or their shape}}}}]
{_MODEL}"""
_EXPORT = f"""\
  alexnet export alexnet@latest m                m/model.onnx (opset 18) and m/model.pt2 (torch.export)
  alexnet export alexnet@latest m --onnx         the first only; needs `pip install 'alexnet-pipeline[export]'`

Both read any number of center crops, float32, n x 3 x side x side, RGB, 0 to 255, and return logits; the mean image is inside.
Releases hold them already, unless publish.exports of params.yaml says otherwise.
--json: {{files: {{PATH: SHA256}}, opset}}
{_MODEL}"""
Run = Callable[[argparse.Namespace], int]


class Add(Protocol):
    """Adds a command: its name, its function, a line about it, and more for its --help."""

    def __call__(self, name: str, run: Run, about: str, more: str = "") -> argparse.ArgumentParser:
        """Returns the command's parser, which has --json."""


def add_commands(add: Add) -> None:
    """Adds them all."""
    _add_releases(add)
    _add_photos(add)


def _add_releases(add: Add) -> None:
    about = "Fetch a released model and check every byte of it; print its folder"
    pull = add("pull", _of("releases", "pull"), about, _PULL)
    pull.add_argument("model", nargs="?", default="alexnet@latest", metavar="MODEL", help="alexnet@latest unless given")
    pull.add_argument("--to", type=Path, metavar="DIR", help="lay it out there; unless given, in the cache")
    pull.add_argument("--offline", action="store_true", help="ask no store: what was pulled before, checked again")

    about = "Check a pulled folder against its manifest: these files, these bytes, no others"
    verify = add("verify", _of("releases", "verify"), about, _VERIFY)
    verify.add_argument("folder", type=Path, metavar="DIR")

    listing = add("releases", _of("releases", "list_releases"), "List a model's releases, the newest first", _RELEASES)
    listing.add_argument("name", nargs="?", default="alexnet", metavar="NAME")
    listing.add_argument("--verify", action="store_true", help="read every object of the model and compare its digest")
    listing.add_argument("--repair", action="store_true", help="the same, and mend what can be mended")
    listing.add_argument(
        "--from", dest="source", type=Path, action="append", default=[], metavar="DIR", help="a folder to mend from"
    )

    one = add("show-release", _of("releases", "show_release"), "Say everything of one release, without fetching it", _RELEASE)
    one.add_argument("model", nargs="?", default="alexnet@latest", metavar="NAME[@ALIAS|@VERSION]")

    about = "Follow a release back to its model, shards, index, source and validation, comparing every digest"
    trace = add("trace", _of("trace", "trace"), about, _TRACE)
    trace.add_argument("model", nargs="?", default="alexnet@latest", metavar="MODEL", help="alexnet@latest unless given")
    trace.add_argument("--quick", action="store_true", help="compare sizes of shards, and read no source")
    trace.add_argument("--image", metavar="KEY", help="also print where this image comes from")
    trace.add_argument("--offline", action="store_true", help="ask no registry: a release that was pulled before")

    about = "Point an alias, champion unless given, at a release, whatever publish decided; --reason is recorded"
    promote = add("promote", _of("aliases", "promote"), about, _PROMOTE)
    promote.add_argument("model", metavar="NAME@VERSION|NAME@ALIAS")
    promote.add_argument("--alias", default="champion", help="champion unless given")
    about = "Point an alias back at what it pointed at before; twice is where it was"
    rollback = add("rollback", _of("aliases", "rollback"), about, _ROLLBACK)
    rollback.add_argument("model", metavar="NAME@ALIAS")
    for command in (promote, rollback):
        command.add_argument("--reason", default="", metavar="TEXT", help="why, for whoever reads the history")
    history = add("history", _of("aliases", "history"), "List every move of an alias: who, when and why", _HISTORY)
    history.add_argument("model", nargs="?", default="alexnet", metavar="NAME[@ALIAS]", help="all of alexnet's unless given")

    about = "Compare the present data with a release's: images, classes, sizes, kinds, brightness"
    drift = add("drift", _of("drift", "compare"), about, _DRIFT)
    drift.add_argument("model", nargs="?", default="alexnet@latest", metavar="NAME[@...]", help="alexnet@latest unless given")
    drift.add_argument("--index", type=Path, default=Path("artifacts/index.parquet"), help="of the present data")
    drift.add_argument("--pixels", type=Path, default=Path("artifacts/pixels.npz"), help="of the present data")
    drift.add_argument("--offline", action="store_true", help="ask no registry: a release that was pulled before")


def _add_photos(add: Add) -> None:
    export = add("export", _of("export", "export"), "Write a model as ONNX and as a program of torch.export", _EXPORT)
    export.add_argument("model", metavar="MODEL", help="a released model, or a folder")
    export.add_argument("folder", type=Path, metavar="DIR", help="where to")
    export.add_argument("--onnx", action="store_true", help="model.onnx; both files unless one is named")
    export.add_argument("--pt2", action="store_true", help="model.pt2")
    export.add_argument("--offline", action="store_true", help="ask no store: a model that was pulled before")
    about = "Name what is in pictures: the five best classes with their probabilities"
    predict = add("predict", _of("predict", "predict"), about, _PREDICT)
    predict.add_argument(
        "--views", choices=["center", "five", "ten"], default="center", help="how many crops; one unless given"
    )
    features = add("features", _of("predict", "features"), "Print or write what layers make of pictures", _FEATURES)
    features.add_argument("--layer", action="append", metavar="LAYER", help="fc7 unless given; may be repeated")
    features.add_argument("--out", type=Path, metavar="FILE.npz", help="write the numbers there")
    for command in (predict, features):
        command.add_argument("images", nargs="+", metavar="PHOTO", help="a file, a folder, a pattern, or - for standard input")
        command.add_argument("--model", default="alexnet@latest", help="alexnet@latest unless given")
        command.add_argument("--offline", action="store_true", help="ask no store: a model that was pulled before")


def _of(module: str, function: str) -> Run:
    """A command's function, whose module is imported when the command runs."""

    def run(args: argparse.Namespace) -> int:
        status: int = getattr(importlib.import_module(f"pipelines.cli.models.{module}"), function)(args)
        return status

    return run
