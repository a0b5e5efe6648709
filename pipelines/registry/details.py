"""What is known of a published version beside its files: when it appeared, its errors, its aliases, who signed it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass

from alexnet.errors import DataError
from pipelines.registry.aliases import Alias
from pipelines.registry.release import MANIFEST, SIGNATURES, Release, ReleaseFile
from pipelines.registry.store import Registry
from pipelines.runtime.errors import Missing

_METRICS = "metrics.json"


@dataclass(frozen=True)
class Details:
    """A version. published: UTC, ISO 8601. top1_error, top5_error: by the center crop, fractions; None if not known.

    signed_by: the ids of the keys; whether a signature is right is not checked here. where: its folder in the bucket.
    """

    name: str
    version: str
    published: str
    aliases: tuple[str, ...]
    top1_error: float | None
    top5_error: float | None
    bytes: int
    signed_by: tuple[str, ...]
    where: str
    files: Mapping[str, ReleaseFile]


def details(registry: Registry, version: str, aliases: Mapping[str, Alias]) -> Details:
    """Of a version. Raises DataError if there is none, or its manifest or metrics.json was changed."""
    release = Release.from_manifest(registry.manifest(version), f"{registry.name}@{version}: {MANIFEST}")
    errors = _errors(registry, release)
    prefix = registry.key(version, f"{SIGNATURES}/")
    return Details(
        name=registry.name,
        version=version,
        published=registry.bucket.modified(registry.key(version, MANIFEST)).isoformat(timespec="seconds"),
        aliases=tuple(sorted(name for name, alias in aliases.items() if alias.version == version)),
        top1_error=errors.get("top1_error"),
        top5_error=errors.get("top5_error"),
        bytes=release.total_bytes,
        signed_by=tuple(key.removeprefix(prefix).removesuffix(".sig") for key in registry.bucket.sizes(prefix)),
        where=f"{registry.bucket}/{registry.key(version)}",
        files=release.files,
    )


def _errors(registry: Registry, release: Release) -> dict[str, float]:
    """The error rates by the center crop; nothing if the release has no metrics of that form."""
    if _METRICS not in release.files:
        return {}
    where = f"{registry.name}@{release.version}: {_METRICS}"
    try:
        body = registry.bucket.get(registry.key(release.version, _METRICS))
    except Missing:
        raise DataError(f"{where}: is missing, the manifest names it; publish the release again") from None
    if hashlib.sha256(body).hexdigest() != release.files[_METRICS].sha256:
        raise DataError(f"{where}: is not what the manifest names; it was changed, do not use it")
    errors = json.loads(body).get("center_crop", {})
    return {name: float(errors[name]) for name in ("top1_error", "top5_error") if name in errors}
