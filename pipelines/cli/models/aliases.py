"""`alexnet promote`, `rollback` and `history`: where a model's aliases point, who pointed them there, and why."""

import argparse
import dataclasses
import sys

from alexnet.errors import DataError
from pipelines.cli.output import print_result
from pipelines.registry.aliases import Alias, Record, Why
from pipelines.registry.details import details
from pipelines.registry.release import MANIFEST, Release, is_name, is_version, parse_reference
from pipelines.registry.signing import trusted_key
from pipelines.registry.store import Registry
from pipelines.runtime.console import escaped
from pipelines.storage.bucket import registry_bucket


def promote(args: argparse.Namespace) -> int:
    """Points an alias at a version, whatever the gate of publish says of it."""
    name, selector = parse_reference(args.model)
    if not is_name(args.alias):
        raise DataError(f"--alias: {args.alias!r}: no name of an alias; lower-case letters, digits and hyphens, a letter first")
    registry = Registry(registry_bucket(), name)
    aliases = registry.aliases()
    if not is_version(selector) and selector not in aliases:
        raise DataError(f"{name}@{selector}: no such alias; {registry.bucket} has: {', '.join(sorted(aliases)) or 'none'}")
    version = selector if is_version(selector) else aliases[selector].version
    found = details(registry, version, aliases)  # refuses one that was changed
    body = registry.manifest(version)
    if key := trusted_key():
        key.verify(body, registry.signature(version, key.id), f"{name}@{version}")
    moved = registry.move(args.alias, Release.from_manifest(body, f"{name}@{version}: {MANIFEST}"), Why("promote", args.reason))
    weak = sorted(each for each, error in found.baselines.items() if found.top1_error is not None and found.top1_error >= error)
    if weak:
        print(f"alexnet promote: {name}@{version} is not better than {' and '.join(weak)}; promoted as asked", file=sys.stderr)
    return _print_move(args.json, name, args.alias, moved)


def rollback(args: argparse.Namespace) -> int:
    """Points an alias back."""
    name, alias = parse_reference(args.model)
    if "@" not in args.model or is_version(alias):
        raise DataError(f"{args.model}: a version never moves; name an alias, for instance alexnet@latest")
    return _print_move(args.json, name, alias, Registry(registry_bucket(), name).rollback(alias, args.reason))


def history(args: argparse.Namespace) -> int:
    """Prints every move of an alias, or of all, the newest last; what is wrong with one is named, and hides no other."""
    name, alias = parse_reference(args.model)
    registry, key = Registry(registry_bucket(), name), trusted_key()
    torn: list[DataError] = []
    names = [alias] if "@" in args.model else sorted(registry.aliases(torn))
    records = sorted((each for alias in names for each in registry.history(alias, key)), key=lambda each: each.move.at)
    for error in torn:
        print(f"alexnet history: error: {escaped(error)}", file=sys.stderr)
    for each in records:
        for fault in each.faults:
            print(f"alexnet history: error: {name}@{each.alias}, move {each.move.number}: {fault}", file=sys.stderr)
    tree = [dataclasses.asdict(each) for each in records]
    print_result(args.json, tree, "\n".join(map(_line, records)) or f"{args.model}: was never moved in {registry.bucket}")
    return int(bool(torn) or any(each.faults for each in records))


def _line(each: Record) -> str:
    move = each.move
    before = f" (before: {move.previous})" if move.previous else ""
    signed = f", signed by {' '.join(each.signed_by)}" if each.signed_by else ""
    why = f": {escaped(move.reason)}" if move.reason else ""
    when = f"{move.at[:16].replace('T', ' '):16}"
    return f"{when}  {each.alias} is {move.version}{before}, {move.action} by {escaped(move.who) or 'unknown'}{signed}{why}"


def _print_move(as_json: bool, name: str, alias: str, moved: Alias) -> int:
    before = f" (before: {moved.previous})" if moved.previous else ""
    tree = {"name": name, "alias": alias} | dataclasses.asdict(moved)
    print_result(as_json, tree, f"{name}@{alias} is {moved.version}{before}")
    return 0
