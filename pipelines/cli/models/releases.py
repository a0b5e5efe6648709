"""`alexnet pull`, `verify`, `releases`, `show-release` and `rollback`: released models, as they are published and fetched."""

import argparse
import dataclasses
import sys

from alexnet.errors import DataError
from pipelines.cli.output import escaped, print_result
from pipelines.registry.client import client_of
from pipelines.registry.details import details
from pipelines.registry.release import MANIFEST, Release, is_version, parse_reference, signature_path
from pipelines.registry.signing import trusted_key
from pipelines.registry.store import Registry
from pipelines.storage.bucket import registry_bucket


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
    manifest = args.folder / MANIFEST
    try:
        body = manifest.read_bytes()
    except OSError as error:
        raise DataError(f"{manifest}: {error.strerror}; give a folder that `alexnet pull` made") from None
    release = Release.from_manifest(body, str(manifest))
    if differences := release.differences(args.folder):
        raise DataError(f"{args.folder}: {'; '.join(differences)}; pull it again")
    key = trusted_key()
    if key:
        signature = args.folder / signature_path(key.id)
        if not signature.is_file():
            raise DataError(f"{args.folder}: not signed by key {key.id}")
        key.verify(body, signature.read_bytes(), str(args.folder))
    tree = {"name": release.name, "version": release.version, "signed_by": key.id if key else None}
    print_result(args.json, tree, f"{release.name}@{release.version}: whole{f', signed by key {key.id}' if key else ''}")
    return 0


def list_releases(args: argparse.Namespace) -> int:
    """Lists all versions of a model, the newest first; one that is damaged is named, and hides no other."""
    registry, damaged = Registry(registry_bucket(), args.name), False
    aliases, found = registry.aliases(), []
    for version in registry.versions():
        try:
            found.append(details(registry, version, aliases))
        except DataError as error:
            damaged = True
            print(f"alexnet releases: error: {escaped(error)}", file=sys.stderr)
    found.sort(key=lambda each: (each.published, each.version), reverse=True)
    tree = {
        "releases": [dataclasses.asdict(each) for each in found],
        "aliases": {name: {"version": alias.version, "previous": alias.previous} for name, alias in sorted(aliases.items())},
    }
    lines = [
        f"{each.name}@{each.version}  {each.published[:16].replace('T', ' ')}  "
        f"{'' if each.top1_error is None else f'{each.top1_error:.2%}':>8}  {each.bytes / 1e6:7,.1f} MB  "
        f"{'signed' if each.signed_by else 'not signed':10}  {' '.join(each.aliases)}".rstrip()
        for each in found
    ]
    print_result(args.json, tree, "\n".join(lines) or f"{args.name}: nothing is published in {registry.bucket}")
    return int(damaged)


def show_release(args: argparse.Namespace) -> int:
    """Says everything of one version, without fetching it."""
    name, selector = parse_reference(args.model)
    registry = Registry(registry_bucket(), name)
    aliases = registry.aliases()
    if not is_version(selector) and selector not in aliases:
        raise DataError(f"{name}@{selector}: no such alias; {registry.bucket} has: {', '.join(sorted(aliases)) or 'none'}")
    found = details(registry, selector if is_version(selector) else aliases[selector].version, aliases)
    lines = [
        f"{found.name}@{found.version}",
        f"published    {found.published}",
        f"aliases      {' '.join(found.aliases) or 'none'}",
        f"top-1 error  {'not known' if found.top1_error is None else f'{found.top1_error:.2%}'}",
        f"top-5 error  {'not known' if found.top5_error is None else f'{found.top5_error:.2%}'}",
        f"signed by    {' '.join(found.signed_by) or 'nobody'}",
        f"where        {found.where}",
        f"files        {len(found.files)}, {found.bytes / 1e6:,.1f} MB",
        *(f"  {file.bytes:12,}  {path}" for path, file in sorted(found.files.items())),
    ]
    print_result(args.json, dataclasses.asdict(found), "\n".join(lines))
    return 0


def rollback(args: argparse.Namespace) -> int:
    """Points an alias back."""
    name, alias = parse_reference(args.model)
    if "@" not in args.model or is_version(alias):
        raise DataError(f"{args.model}: a version never moves; name an alias, for instance alexnet@latest")
    moved = Registry(registry_bucket(), name).rollback(alias)
    tree = {"name": name, "alias": alias, "version": moved.version, "previous": moved.previous}
    print_result(args.json, tree, f"{name}@{alias} is {moved.version} (before: {moved.previous})")
    return 0
