"""The registry's client: a published version on this machine, in a folder that appears when every byte of it is verified.

Files are cached by their SHA-256 under ALEXNET_REGISTRY_CACHE (~/.cache/alexnet unless set): a version is fetched once, an
interrupted fetch is resumed, and `--offline` needs no store.
"""

import dataclasses
import hashlib
import math
import os
import re
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_folder, atomic_write_bytes, sync
from alexnet.files.locks import flock
from alexnet.files.strict import open_regular, read_bytes
from alexnet.inference.references import is_reference
from pipelines.registry.release import MANIFEST, SIGNATURES, Release, is_signature, is_version, parse_reference, signature_path
from pipelines.registry.signing import PublicKey, trusted_key
from pipelines.registry.store import Registry
from pipelines.runtime import environment
from pipelines.runtime.console import progress
from pipelines.runtime.errors import Denied, Unreachable

if TYPE_CHECKING:
    from pipelines.storage.bucket import Bucket

_PLACE = re.compile(r"s3://([^/]+)/([^/]+?)(?:/versions/([^/]+)/?)?")
_STREAMS = 8  # files fetched at a time
_LOCK_SECONDS = 3600.0  # to wait for another process that pulls the same; the kernel drops the lock of a dead one


def cache_folder() -> Path:
    """ALEXNET_REGISTRY_CACHE: where fetched releases are cached, for all projects of this user."""
    if named := os.environ.get("ALEXNET_REGISTRY_CACHE"):
        if Path(named).exists() and not Path(named).is_dir():
            raise DataError(f"ALEXNET_REGISTRY_CACHE: {named} is no folder; set it to a folder, or to one that can be made")
        return Path(named)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alexnet"
    except RuntimeError:  # no HOME, and the user id has no name
        raise DataError("no home folder is known for a cache; set ALEXNET_REGISTRY_CACHE to a folder") from None


def client_of(reference: str, offline: bool = False) -> tuple["Client", str]:
    """The client for a reference, and the reference without its bucket.

    Args:
        reference: NAME[@ALIAS|@VERSION] in the registry of the environment; s3://BUCKET/NAME[@...] or, as the publish stage
            prints it, s3://BUCKET/NAME/versions/VERSION.
        offline: use only what was pulled before.
    """
    cache, key = cache_folder(), trusted_key()
    if not reference.startswith("s3://"):
        return Client(None if offline else _bucket(), cache, key), reference
    found = _PLACE.fullmatch(reference)
    if not found:
        raise DataError(f"{reference}: not a model; write s3://BUCKET/NAME@ALIAS or s3://BUCKET/NAME/versions/VERSION")
    name, model, version = found.groups()
    bucket = None if offline else _bucket(name)
    return Client(bucket, cache / "buckets" / name, key), f"{model}@{version}" if version else model


def _bucket(name: str | None = None) -> "Bucket":
    """The bucket of this name, or that of the registry."""
    from pipelines.storage.bucket import bucket_at, registry_bucket  # boto3 takes half a second to import

    return bucket_at(name, environment.store_of(name)) if name else registry_bucket()


def fetch(reference: str) -> Path:
    """The folder of a release, fetched and checked: what `alexnet.load` calls for a reference, and with a key for a folder."""
    if not is_reference(reference):
        check_folder(Path(reference), trusted_key())
        return Path(reference)
    client, model = client_of(reference)
    return client.pull(model)[1]


def check_folder(folder: Path, key: PublicKey | None) -> Release:
    """The release in a folder that was pulled.

    Raises:
        DataError: the folder is none, something of it differs from its manifest, or it is not signed by the key.
    """
    manifest = folder / MANIFEST
    try:
        body = read_bytes(manifest)
    except OSError as error:
        raise DataError(f"{manifest}: {error.strerror}; give a folder that `alexnet pull` made") from None
    release = Release.from_manifest(body, str(manifest))
    if differences := release.differences(folder):
        raise DataError(f"{folder}: {'; '.join(differences)}; pull it again")
    if key:
        try:
            signature = read_bytes(folder / signature_path(key.id))
        except OSError:
            raise DataError(f"{folder}: not signed by key {key.id}") from None
        key.verify(body, signature, str(folder))
    return release


class Client:
    """Fetches releases.

    Args:
        bucket: Of the registry; None to use only what is in the cache.
        cache: The folder of what was fetched.
        key: Releases must be signed by it; None accepts any.
    """

    def __init__(self, bucket: "Bucket | None", cache: Path, key: PublicKey | None = None) -> None:
        self._bucket, self._cache, self._key = bucket, cache, key

    def pull(self, reference: str, to: Path | None = None) -> tuple[Release, Path]:
        """A release and its folder: `to`, or one in the cache, whose files are read-only.

        Raises:
            DataError: there is no such version, something of it differs from its manifest, it is not signed as it must be,
                or `to` holds something else.
        """
        registry, release, signed = self._open(reference)
        name = release.name
        folder = to or self._cache / "releases" / name / release.version
        if not _holds(folder, release):
            if to and to.exists():
                _check_replaceable(to)
            folder.parent.mkdir(parents=True, exist_ok=True)
            with flock(folder.with_name(f".{folder.name}.lock"), _LOCK_SECONDS, f"{name}@{release.version}"):
                if not _holds(folder, release):
                    self._write_folder(registry, release, folder, signed)
        for path, data in signed.items():
            if not (folder / path).is_file() or (folder / path).read_bytes() != data:
                atomic_write_bytes(folder / path, data)
        return release, folder

    def pull_files(self, reference: str, paths: Sequence[str]) -> list[Path]:
        """Some files of a release, each in the cache under its digest. Raises DataError also when it has no such file."""
        registry, release, _ = self._open(reference)
        if missing := [path for path in paths if path not in release.files]:
            raise DataError(f"{release.name}@{release.version}: has no {', '.join(missing)}; it is of an older program")
        self._fetch_all(registry, dataclasses.replace(release, files={path: release.files[path] for path in paths}))
        return [self._blob(release.files[path].sha256) for path in paths]

    # The manifest and its signature.

    def _open(self, reference: str) -> tuple[Registry | None, Release, dict[str, bytes]]:
        """Where a release comes from, the release, and its checked manifest and signature by their paths."""
        name, selector = parse_reference(reference)
        registry = Registry(self._bucket, name) if self._bucket else None
        body = self._read_manifest(registry, name, selector)
        release = Release.from_manifest(body, f"{name}@{selector}: {MANIFEST}")
        if release.name != name or (is_version(selector) and release.version != selector):
            raise DataError(
                f"{name}@{selector}: its manifest is that of {release.name}@{release.version}; it was changed, do not use it"
            )
        signature = self._read_signature(registry, release, body)
        if registry:
            atomic_write_bytes(self._cached_manifest(name, selector), body)  # only now: what is refused replaces nothing
        return registry, release, {MANIFEST: body} | signature

    def _cached_manifest(self, name: str, selector: str) -> Path:
        return self._cache / "manifests" / name / f"{selector}.json"

    def _read_manifest(self, registry: Registry | None, name: str, selector: str) -> bytes:
        cached = self._cached_manifest(name, selector)
        if registry is None:
            return self._read_cached(cached, f"{name}@{selector}")
        try:
            body = registry.manifest(selector) if is_version(selector) else _manifest_of_alias(registry, selector)
        except Unreachable as error:
            advice = f"; it was pulled before: use --offline for what {self._cache} holds" if cached.exists() else ""
            raise Unreachable(f"{error}{advice}") from error
        return body

    def _read_signature(self, registry: Registry | None, release: Release, body: bytes) -> dict[str, bytes]:
        """The verified signature by its path in the release; empty without a key."""
        if self._key is None:
            return {}
        where = f"{release.name}@{release.version}"
        cached = self._cache / SIGNATURES / f"{hashlib.sha256(body).hexdigest()}.{self._key.id}.sig"
        if registry:
            signature = registry.signature(release.version, self._key.id)
        else:
            signature = self._read_cached(cached, f"{where}: signature by key {self._key.id}")
        self._key.verify(body, signature, where)
        if registry:
            atomic_write_bytes(cached, signature)
        return {signature_path(self._key.id): signature}

    def _read_cached(self, path: Path, what: str) -> bytes:
        try:
            return read_bytes(path)
        except FileNotFoundError:
            raise DataError(f"{what}: not in {self._cache}; pull it once without --offline") from None

    # Its files.

    def _write_folder(self, registry: Registry | None, release: Release, folder: Path, signed: dict[str, bytes]) -> None:
        if registry:
            _check_no_extras(registry, release)
        self._fetch_all(registry, release)
        in_cache = folder.is_relative_to(self._cache)
        with atomic_folder(folder) as part:
            for path, file in release.files.items():
                target = part / path
                target.parent.mkdir(parents=True, exist_ok=True)
                if in_cache:  # nobody writes there: one copy on the disk is enough
                    target.hardlink_to(self._blob(file.sha256))
                else:
                    shutil.copyfile(self._blob(file.sha256), target)
            for path, data in signed.items():
                (part / path).parent.mkdir(exist_ok=True)
                (part / path).write_bytes(data)
            if differences := release.differences(part):
                raise DataError(f"{folder}: {differences[0]} while it was copied; check the disk")

    def _blob(self, sha256: str) -> Path:
        return self._cache / "blobs" / sha256

    def _fetch_all(self, registry: Registry | None, release: Release) -> None:
        """Every file of the release into the cache."""
        wanted = {file.sha256: path for path, file in release.files.items()}
        missing = [path for sha256, path in wanted.items() if not _is_intact(self._blob(sha256), sha256)]
        name = f"{release.name}@{release.version}"
        if missing and registry is None:
            raise DataError(f"{name}: {', '.join(missing)} not in {self._cache}; pull it once without --offline")
        with progress(sum(release.files[path].bytes for path in missing), name, "B") as advance:

            def fetch(path: str) -> None:
                assert registry is not None
                self._fetch(registry, release, path, advance)

            with ThreadPoolExecutor(_STREAMS) as pool:
                list(pool.map(fetch, missing))

    def _fetch(self, registry: Registry, release: Release, path: str, advance: Callable[[int], None]) -> None:
        """One file; if its digest differs it is fetched once more, from its start."""
        key, file = registry.key(release.version, path), release.files[path]
        blob = self._blob(file.sha256)
        part = blob.with_name(f"{blob.name}.part")
        blob.parent.mkdir(parents=True, exist_ok=True)
        with flock(blob.with_name(f"{blob.name}.lock"), _LOCK_SECONDS, key):
            if _is_intact(blob, file.sha256):  # fetched by another process meanwhile
                return
            for _ in range(2):
                found = _append(registry.bucket, key, part, file.bytes, advance)
                if found == file.sha256:
                    sync(part)
                    part.chmod(0o444)
                    part.replace(blob)
                    sync(blob.parent)
                    return
                part.unlink()
            raise DataError(
                f"{registry.bucket}/{key}: sha256 is {found}, the manifest says {file.sha256}, also when fetched again; "
                "it was damaged or changed, do not use it"
            )


def _manifest_of_alias(registry: Registry, alias: str) -> bytes:
    found = registry.alias(alias)
    if found is None:
        known = ", ".join(sorted(registry.aliases())) or "none"
        raise DataError(f"{registry.name}@{alias}: no such alias in {registry.bucket}; it has: {known}")
    body = registry.manifest(found.version)
    if hashlib.sha256(body).hexdigest() != found.manifest_sha256:
        raise DataError(
            f"{registry.name}@{alias}: the manifest of {found.version} is not the one the alias was given; "
            "it was changed, do not use it"
        )
    return body


def _check_no_extras(registry: Registry, release: Release) -> None:
    """Raises if the version has objects that its manifest does not name: `aws s3 cp --recursive` would copy them too."""
    prefix = registry.key(release.version)
    try:
        found = {key.removeprefix(prefix) for key in registry.bucket.sizes(prefix)}
    except Denied:
        return  # a reader that may not list cannot copy the folder either
    if extra := sorted(path for path in found - {MANIFEST, *release.files} if not is_signature(path)):
        raise DataError(
            f"{registry.bucket}/{prefix}: holds {', '.join(extra)}, which the manifest does not name; do not use it"
        )


def _append(bucket: "Bucket", key: str, part: Path, size: int, advance: Callable[[int], None]) -> str:
    """Appends to the part file what it lacks of the object's first `size` bytes; returns the file's SHA-256."""
    from alexnet.shards.download import download  # with numpy, which takes a tenth of a second to import
    from alexnet.shards.verify import Mismatch

    if part.is_file() and not part.is_symlink():
        advance(min(size, part.stat().st_size))  # of an interrupted fetch
    try:
        return download(key, size, part, bucket.stream, math.inf, advance)  # the bucket has a patience of its own
    except Mismatch:  # the object ends early
        with part.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def _holds(folder: Path, release: Release) -> bool:
    return folder.is_dir() and not release.differences(folder)


def _check_replaceable(folder: Path) -> None:
    """Raises unless the folder is empty or an unchanged release, which another one may replace."""
    if folder.resolve() == Path.cwd():
        raise DataError(f"{folder}: is the current folder; choose one that is not there yet")
    try:
        present = Release.from_manifest(read_bytes(folder / MANIFEST), str(folder / MANIFEST))
        differences = present.differences(folder)
    except (OSError, DataError):
        differences = ["no release"]
    if differences and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise DataError(
            f"{folder}: exists and is not a release as it was pulled ({differences[0]}); "
            "choose another folder, or remove this one"
        )


def _is_intact(path: Path, sha256: str) -> bool:
    """Whether the file exists with this digest; one with another digest is removed."""
    try:
        with open_regular(path) as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return False
    if found != sha256:
        path.unlink()
    return found == sha256
