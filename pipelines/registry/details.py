"""What is known of a published version beside its files: when it appeared, its errors, its aliases, who signed it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from alexnet.errors import DataError
from alexnet.files.strict import loads
from pipelines.registry.aliases import Alias
from pipelines.registry.release import MANIFEST, SIGNATURES, Release, ReleaseFile
from pipelines.registry.store import Registry
from pipelines.runtime.errors import Missing

_METRICS = "metrics.json"
_RESULTS = "evaluation/results.json"
_PROVENANCE = "provenance.json"


@dataclass(frozen=True)
class Details:
    """A version. published: UTC, ISO 8601. top1_error, top5_error: by the center crop, fractions; None if not known.

    top1_interval: 95%. baselines: their top-1 errors. commit: of git, and whether files differed from it; None if unknown.
    signed_by: the ids of the keys; whether a signature is right is not checked here. where: its folder in the bucket.
    """

    name: str
    version: str
    published: str
    aliases: tuple[str, ...]
    top1_error: float | None
    top1_interval: tuple[float, float] | None
    top5_error: float | None
    baselines: Mapping[str, float]
    commit: str | None
    bytes: int
    signed_by: tuple[str, ...]
    where: str
    files: Mapping[str, ReleaseFile]


def details(registry: Registry, version: str, aliases: Mapping[str, Alias]) -> Details:
    """Of a version. Raises DataError if there is none, or its manifest or metrics.json was changed."""
    release = Release.from_manifest(registry.manifest(version), f"{registry.name}@{version}: {MANIFEST}")
    metrics, results, provenance = (_read(registry, release, path) for path in (_METRICS, _RESULTS, _PROVENANCE))
    low, high = (_number(results, "protocols", 0, "top1_error", end) for end in ("low", "high"))
    baselines = {name: _number(metrics, "baselines", name, "top1_error") for name in ("majority", "ridge")}
    commit = provenance.get("commit")
    prefix = registry.key(version, f"{SIGNATURES}/")
    return Details(
        name=registry.name,
        version=version,
        published=registry.bucket.modified(registry.key(version, MANIFEST)).isoformat(timespec="seconds"),
        aliases=tuple(sorted(name for name, alias in aliases.items() if alias.version == version)),
        top1_error=_number(metrics, "center_crop", "top1_error"),
        top1_interval=None if low is None or high is None else (low, high),
        top5_error=_number(metrics, "center_crop", "top5_error"),
        baselines={name: error for name, error in baselines.items() if error is not None},
        commit=f"{commit}{' with changes' if provenance.get('changed') else ''}" if commit else None,
        bytes=release.total_bytes,
        signed_by=tuple(key.removeprefix(prefix).removesuffix(".sig") for key in registry.bucket.sizes(prefix)),
        where=f"{registry.bucket}/{registry.key(version)}",
        files=release.files,
    )


def _read(registry: Registry, release: Release, path: str) -> dict[str, Any]:
    """A JSON file of the release; empty if the release has none of that form."""
    if path not in release.files:
        return {}
    where = f"{registry.name}@{release.version}: {path}"
    try:
        body = registry.bucket.get(registry.key(release.version, path))
    except Missing:
        raise DataError(f"{where}: is missing, the manifest names it; publish the release again") from None
    if hashlib.sha256(body).hexdigest() != release.files[path].sha256:
        raise DataError(f"{where}: is not what the manifest names; it was changed, do not use it")
    try:
        tree = loads(body)
    except ValueError:
        tree = None
    return tree if isinstance(tree, dict) else {}


def _number(tree: Any, *path: str | int) -> float | None:
    """The fraction at a path of keys and places; None if there is none."""
    for key in path:
        try:
            tree = tree[key]
        except (KeyError, IndexError, TypeError):
            return None
    return float(tree) if type(tree) in (int, float) and abs(tree) <= 1 else None
