"""`alexnet pull`, `verify`, `releases` and `show-release`: released models, as they are published and fetched."""

import argparse
import dataclasses
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alexnet.errors import DataError
from pipelines.cli.output import print_result
from pipelines.registry.client import cache_folder, check_folder, client_of
from pipelines.registry.details import Details, details
from pipelines.registry.release import is_version, parse_reference
from pipelines.registry.signing import trusted_key
from pipelines.registry.store import Registry
from pipelines.runtime import environment
from pipelines.runtime.console import escaped
from pipelines.storage.bucket import registry_bucket

_STREAMS = 8  # releases read at a time


def pull(args: argparse.Namespace) -> int:
    """Fetches a release."""
    client, model = client_of(args.model, args.offline)
    release, folder = client.pull(model, args.to)
    tree = {"name": release.name, "version": release.version, "folder": str(folder), "bytes": release.total_bytes}
    print_result(args.json, tree, str(folder))
    size = f"{len(release.files)} files, {release.total_bytes / 1e6:,.1f} MB"
    print(f"{release.name}@{release.version}: {size}, all as published", file=sys.stderr)
    return 0


def verify(args: argparse.Namespace) -> int:
    """Compares a folder with its manifest, and the manifest with its signature if a key is set."""
    key = trusted_key()
    release = check_folder(args.folder, key)
    tree = {"name": release.name, "version": release.version, "signed_by": key.id if key else None}
    print_result(args.json, tree, f"{release.name}@{release.version}: whole{f', signed by key {key.id}' if key else ''}")
    return 0


def list_releases(args: argparse.Namespace) -> int:
    """Lists all versions of a model, the newest first; one that is damaged is named, and hides no other."""
    registry = Registry(registry_bucket(), args.name)
    if args.verify or args.repair:
        return _verify_all(args, registry)
    damaged: list[DataError] = []
    aliases = registry.aliases(damaged)

    def read(version: str) -> Details | None:
        try:
            return details(registry, version, aliases)
        except DataError as error:
            damaged.append(error)
            return None

    with ThreadPoolExecutor(_STREAMS) as pool:
        found = [each for each in pool.map(read, registry.versions()) if each]
    for error in damaged:
        print(f"alexnet releases: error: {escaped(error)}", file=sys.stderr)
    found.sort(key=lambda each: (each.published, each.version), reverse=True)
    tree = {
        "releases": [dataclasses.asdict(each) for each in found],
        "aliases": {name: {"version": alias.version, "previous": alias.previous} for name, alias in sorted(aliases.items())},
    }
    lines = [_line(each) for each in found]
    print_result(args.json, tree, "\n".join(lines) or f"{args.name}: nothing is published in {registry.bucket}")
    return int(bool(damaged))


def _verify_all(args: argparse.Namespace, registry: Registry) -> int:
    """Compares every object of the model, and mends them if asked; 1 if one is damaged and was not mended."""
    from pipelines.registry.repair import Repair

    folders = [*args.source, environment.LOCAL / "release", Path("artifacts"), cache_folder()]
    faults = list(Repair(registry, folders, trusted_key(), mends=args.repair).faults())
    for each in faults:
        print(f"{escaped(each.key)}: {escaped(each.fault)}{', mended' if each.mended else ''}", file=sys.stderr)
    left = sum(not each.mended for each in faults)
    text = f"{args.name}: {len(registry.versions()):,} versions at {registry.bucket}: "
    text += f"{left:,} objects damaged" if left else "every digest as published"
    advice = "; publish again, or name a folder that has them: --from DIR" if args.repair else "; --repair mends what can be"
    print_result(args.json, [dataclasses.asdict(each) for each in faults], text + (advice if left else ""))
    return int(bool(left))


def show_release(args: argparse.Namespace) -> int:
    """Says everything of one version, without fetching it."""
    name, selector = parse_reference(args.model)
    registry = Registry(registry_bucket(), name)
    aliases = registry.aliases()
    if not is_version(selector) and selector not in aliases and registry.alias(selector) is None:  # raises if it is torn
        raise DataError(f"{name}@{selector}: no such alias; {registry.bucket} has: {', '.join(sorted(aliases)) or 'none'}")
    found = details(registry, selector if is_version(selector) else aliases[selector].version, aliases)
    lines = [
        f"{found.name}@{found.version}",
        f"published    {found.published}",
        f"aliases      {' '.join(found.aliases) or 'none'}",
        f"top-1 error  {_error(found) or 'not known'}",
        f"top-5 error  {'not known' if found.top5_error is None else f'{found.top5_error:.2%}'}",
        f"git commit   {escaped(found.commit or 'not known')}",
        f"signed by    {' '.join(found.signed_by) or 'nobody'}",
        f"where        {found.where}",
        f"files        {len(found.files)}, {found.bytes / 1e6:,.1f} MB",
        *(f"  {file.bytes:12,}  {path}" for path, file in sorted(found.files.items())),
    ]
    print_result(args.json, dataclasses.asdict(found), "\n".join(lines))
    return 0


def _line(each: Details) -> str:
    """Version, date (UTC), error with its interval, size, git commit, signers, aliases."""
    commit, _, changed = (each.commit or "").partition(" ")
    cells = [
        f"{each.name}@{each.version}",
        each.published[:16].replace("T", " "),
        f"{_error(each):26}",
        f"{each.bytes / 1e6:7,.1f} MB",
        f"{escaped(commit[:8]) + ('+' if changed else ''):9}",
        f"{' '.join(each.signed_by) or 'not signed':16}",
        " ".join(each.aliases),
    ]
    return "  ".join(cells).rstrip()


def _error(each: Details) -> str:
    if each.top1_error is None:
        return ""
    interval = each.top1_interval
    return f"{each.top1_error:6.2%}" + (f" ({100 * interval[0]:.2f} to {interval[1]:.2%})" if interval else "")
