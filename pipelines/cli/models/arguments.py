"""The arguments and the help of the commands for released models."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

PLACES = """\
The registry is the bucket in ALEXNET_REGISTRY (default: ALEXNET_BUCKET), reached by the AWS variables; else the local store's.
With ALEXNET_VERIFY_KEY set to a public key's file (Ed25519 or P-256), only models signed by that key are accepted.
Fetched models are kept in ALEXNET_REGISTRY_CACHE; default: ~/.cache/alexnet."""
_MODEL = f"""\
MODEL is NAME@ALIAS or NAME@VERSION in the registry, s3://BUCKET/NAME@ALIAS, s3://BUCKET/NAME/versions/VERSION, or a folder.
{PLACES}"""
_MOVE = f"""\
--json: {{name, alias, version, previous, number, action, who, at, reason, manifest_sha256, before_sha256, nonce}}
The move is recorded permanently, with its time and who made it: ALEXNET_WHO, or this user and machine. If ALEXNET_SIGNING_KEY
names the file of a private key, the record is signed by it.
{PLACES}"""
_PULL = f"""\
  alexnet pull                                   fetch alexnet@latest into the cache
  alexnet pull alexnet@4fe4230fd51a6830 --to m   fetch that version into the folder m

--json: {{name, version, folder, bytes}}
{_MODEL}"""
_VERIFY = """\
  alexnet verify m        with ALEXNET_VERIFY_KEY set, checks the signature too

--json: {name, version, signed_by}, `signed_by` null if no key is set"""
_RELEASES = f"""\
  alexnet releases        prints date (UTC), top-1 error by the center crop with its 95% interval, size, git commit (+: some
                          files differed from it), the keys that signed it, aliases

  alexnet releases --verify --repair
                          compares every object with its digest, and repairs files from --from DIR, .local/release, artifacts
                          and the client's cache; manifests, aliases and moves from other objects that contain the same facts;
                          and, with the key in ALEXNET_SIGNING_KEY, signatures of what those folders hold. This publishes a
                          version whose files are complete but lack a manifest: to withdraw a version, remove all its files

--json with --verify: [{{key, fault, mended}}], without
--json: {{releases: [as `show-release` gives them], aliases: {{ALIAS: {{version, previous}}}}}}
{PLACES}"""
_RELEASE = f"""\
  alexnet show-release alexnet@latest

--json: {{name, version, published, aliases, top1_error, top1_interval, top5_error, baselines: {{NAME: top-1 error}}, commit,
bytes, signed_by, where, files: {{PATH: {{bytes, sha256}}}}}}
Errors are fractions by the center crop, null if unknown; `published` is UTC; `signed_by` lists the keys whose signatures the
release has, without checking them (`alexnet verify` does).
{PLACES}"""
_TRACE = f"""\
  alexnet trace alexnet@latest                   reads every byte of shards and source, as far as they can be reached
  alexnet trace alexnet@latest --quick           compares the shards' sizes only, and reads no source
  alexnet trace alexnet@latest --image 0_17      also prints where that image comes from, and the shard it is in

Prints one line per link: release, code, lineage, model, index, shards, source, validation. Each is `right`, `wrong` (also if
the release was made from changed code or data), `not compared` (with the reason) or `skipped` (by --quick). The exit status
is 0 if all were compared and are right, 1 if one is wrong or there is no such release, 3 if one could not be compared.
Run it in a checkout to compare the code with its commit. The source is looked for as `make run` does, with ALEXNET_SOURCE.
--json: {{name, version, links: [{{name, state, about, files: {{PATH: SHA256}}}}], image: the row of the index with its shard}}
{_MODEL}"""
_PROMOTE = f"""\
  alexnet promote alexnet@latest                                            makes it champion
  alexnet promote alexnet@4fe4230fd51a6830 --reason 'new classes'
  alexnet promote alexnet@4fe4230fd51a6830 --alias latest

The stage `publish` moves champion only to a model that is not worse (docs/releases.md); this moves any alias to any version.
{_MOVE}"""
_ROLLBACK = f"""\
  alexnet rollback alexnet@champion --reason 'takes birds for planes'

{_MOVE}"""
_HISTORY = f"""\
  alexnet history                    lists the moves of every alias, the newest last
  alexnet history alexnet@champion

--json: [{{alias, move: {{version, manifest_sha256, previous, number, action, who, at, reason, before_sha256, nonce}},
signed_by, faults}}]
If a move was altered, is missing, or is not signed by ALEXNET_VERIFY_KEY, standard error says so and the exit status is 1.
{PLACES}"""
_DRIFT = f"""\
  alexnet drift                      compares the current data, artifacts/index.parquet, with that of alexnet@latest

Distances between distributions are from 0 (equal) to 1 (nothing in common), marked (!) from 0.1 on. Only images in use count.
--json: {{model, rows: [{{quantity, before, now, distance, note, notable}}]}}; no rows if the images are the same
{PLACES}"""
_PREDICT = f"""\
  alexnet predict photo.jpg                      with alexnet@latest
  alexnet predict holiday/ 'more/*.png'          all images below a folder, and all that match a pattern
  curl ADDRESS | alexnet predict - --json        an image from standard input; JSON

--json: [{{image, views, classes: [{{label, wnid, name, probability}}]}}], the most probable class first
A photograph that cannot be decoded is named on standard error and skipped, and the exit status is 1.
{_MODEL}"""
_FEATURES = f"""\
  alexnet features photo.jpg                                     prints the values of fc7
  alexnet features holiday/ --layer conv5.pool --layer fc7.relu --out f.npz

`fc7` are the values before the nonlinearity; `fc7.relu`, `conv1.lrn`, `conv5.pool` and such those after that step of the layer.
Prints PATH, LAYER and the values, separated by tabs. With --out, it prints shapes instead of values, and FILE.npz has the paths
as `images` and for every LAYER an array of that name with one row per image.
--json: [{{image, features: {{LAYER: nested numbers, or their shape}}}}]
{_MODEL}"""
_EXPORT = f"""\
  alexnet export alexnet@latest m                writes m/model.onnx (opset 18) and m/model.pt2 (torch.export)
  alexnet export alexnet@latest m --onnx         the first only; needs `pip install 'alexnet-pipeline[export]'`

Both take any number of center crops, float32, n x 3 x side x side, RGB, 0 to 255, subtract the mean image, and return logits.
Releases already contain them, unless publish.exports in params.yaml says otherwise.
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
    pull.add_argument("model", nargs="?", default="alexnet@latest", metavar="MODEL", help="default: alexnet@latest")
    pull.add_argument("--to", type=Path, metavar="DIR", help="write it into this folder; default: into the cache")
    pull.add_argument("--offline", action="store_true", help="ask no registry; check again what was pulled before")

    about = "Check a pulled folder against its manifest: these files, these bytes, no others"
    verify = add("verify", _of("releases", "verify"), about, _VERIFY)
    verify.add_argument("folder", type=Path, metavar="DIR")

    listing = add("releases", _of("releases", "list_releases"), "List a model's releases, the newest first", _RELEASES)
    listing.add_argument("name", nargs="?", default="alexnet", metavar="NAME")
    listing.add_argument("--verify", action="store_true", help="read every object of the model and compare its digest")
    listing.add_argument("--repair", action="store_true", help="the same, and repair what can be repaired")
    listing.add_argument(
        "--from",
        dest="source",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="a folder to repair from; may be repeated",
    )

    one = add(
        "show-release", _of("releases", "show_release"), "Print everything about one release, without fetching it", _RELEASE
    )
    one.add_argument("model", nargs="?", default="alexnet@latest", metavar="NAME[@ALIAS|@VERSION]")

    about = "Follow a release back to its model, shards, index, source and validation, comparing every digest"
    trace = add("trace", _of("trace", "trace"), about, _TRACE)
    trace.add_argument("model", nargs="?", default="alexnet@latest", metavar="MODEL", help="default: alexnet@latest")
    trace.add_argument("--quick", action="store_true", help="compare only the sizes of shards, and read no source")
    trace.add_argument("--image", metavar="KEY", help="also print where this image comes from")
    trace.add_argument("--offline", action="store_true", help="ask no registry; use a release that was pulled before")

    about = "Move an alias to a release, whatever the stage publish decided; --reason is recorded"
    promote = add("promote", _of("aliases", "promote"), about, _PROMOTE)
    promote.add_argument("model", metavar="NAME@VERSION|NAME@ALIAS")
    promote.add_argument("--alias", default="champion", help="default: champion")
    about = "Move an alias back to where it was before; a second rollback undoes the first"
    rollback = add("rollback", _of("aliases", "rollback"), about, _ROLLBACK)
    rollback.add_argument("model", metavar="NAME@ALIAS")
    for command in (promote, rollback):
        command.add_argument("--reason", default="", metavar="TEXT", help="why, for the history")
    history = add("history", _of("aliases", "history"), "List every move of an alias: who, when and why", _HISTORY)
    history.add_argument("model", nargs="?", default="alexnet", metavar="NAME[@ALIAS]", help="default: all aliases of alexnet")

    about = "Compare the current data with a release's: images, classes, sizes, formats, brightness"
    drift = add("drift", _of("drift", "compare"), about, _DRIFT)
    drift.add_argument("model", nargs="?", default="alexnet@latest", metavar="NAME[@...]", help="default: alexnet@latest")
    drift.add_argument(
        "--index", type=Path, default=Path("artifacts/index.parquet"), help="of the current data; default: %(default)s"
    )
    drift.add_argument(
        "--pixels", type=Path, default=Path("artifacts/pixels.npz"), help="of the current data; default: %(default)s"
    )
    drift.add_argument("--offline", action="store_true", help="ask no registry; use a release that was pulled before")


def _add_photos(add: Add) -> None:
    export = add("export", _of("export", "export"), "Write a model as ONNX and as a program of torch.export", _EXPORT)
    export.add_argument("model", metavar="MODEL", help="a released model, or a folder")
    export.add_argument("folder", type=Path, metavar="DIR", help="the folder to write into")
    export.add_argument("--onnx", action="store_true", help="write model.onnx only")
    export.add_argument("--pt2", action="store_true", help="write model.pt2 only")
    export.add_argument("--offline", action="store_true", help="ask no registry; use a model that was pulled before")
    about = "Print what is in pictures: the five most probable classes"
    predict = add("predict", _of("predict", "predict"), about, _PREDICT)
    predict.add_argument(
        "--views", choices=["center", "five", "ten"], default="center", help="how many crops; default: center, one crop"
    )
    features = add("features", _of("predict", "features"), "Print or write the values of layers for pictures", _FEATURES)
    features.add_argument("--layer", action="append", metavar="LAYER", help="default: fc7; may be repeated")
    features.add_argument("--out", type=Path, metavar="FILE.npz", help="write the values into this file")
    for command in (predict, features):
        command.add_argument("images", nargs="+", metavar="PHOTO", help="a file, a folder, a pattern, or - for standard input")
        command.add_argument("--model", default="alexnet@latest", help="default: alexnet@latest")
        command.add_argument("--offline", action="store_true", help="ask no registry; use a model that was pulled before")


def _of(module: str, function: str) -> Run:
    """A command's function, whose module is imported when the command runs."""

    def run(args: argparse.Namespace) -> int:
        status: int = getattr(importlib.import_module(f"pipelines.cli.models.{module}"), function)(args)
        return status

    return run
