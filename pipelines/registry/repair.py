"""Compares every object of a model in the registry with its digest, and mends what can be mended.

A damaged file is uploaded again from a folder that has these bytes, a manifest made again of SHA256SUMS and the files, an alias
or a move written again from what else holds it. A signature is replaced by its owner, and only on a release in own folders:
whoever can write to the store must not be able to have something signed.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from alexnet.errors import DataError
from pipelines.registry import signing
from pipelines.registry.aliases import AliasHistory
from pipelines.registry.release import MANIFEST, SUMS, Release, ReleaseFile, is_path, is_signature, signature_path
from pipelines.registry.signing import PublicKey
from pipelines.registry.store import Registry

_STREAMS = 8  # objects read at a time
Write = Callable[[], object]


@dataclass(frozen=True)
class Fault:
    """An object that is not what it must be. mended: whether it is now."""

    key: str
    fault: str
    mended: bool


class Repair:
    """Everything of one model.

    Args:
        registry: of the model.
        folders: own ones, which may hold releases or files of them; blobs by digest lie in `blobs/` of some.
        key: releases and moves must be signed by it; None: signatures of others are not checked.
        mends: whether to mend.
    """

    def __init__(self, registry: Registry, folders: Sequence[Path], key: PublicKey | None, *, mends: bool) -> None:
        self._registry, self._bucket, self._folders = registry, registry.bucket, folders
        self._key, self._mends = key, mends

    def faults(self) -> Iterator[Fault]:
        """Every damaged object, mended where that was asked for and could be."""
        prefix = f"{self._registry.name}/versions/"
        paths: dict[str, list[str]] = {}
        for stored in self._bucket.sizes(prefix):
            version, _, path = stored.removeprefix(prefix).partition("/")
            paths.setdefault(version, []).append(path)
        for version, found in paths.items():
            yield from self._version(version, found)
        root = f"{self._registry.name}/"
        names = {
            key.removeprefix(f"{root}{kind}/").partition("/")[0].removesuffix(".json")
            for kind in ("aliases", "history")
            for key in self._bucket.sizes(f"{root}{kind}/")
        }
        for name in sorted(names):
            history = AliasHistory(self._bucket, self._registry.name, name)
            for key, fault, body in history.damaged(self._key, self._is_own):
                yield self._fault(key, fault, None if body is None else partial(self._bucket.put, key, body))

    def _fault(self, key: str, fault: str, mend: Write | None) -> Fault:
        if mend and self._mends:
            mend()
        return Fault(key, fault, bool(mend) and self._mends)

    def _version(self, version: str, paths: list[str]) -> Iterator[Fault]:
        key = self._registry.key(version, MANIFEST)
        body = self._bucket.read_if_whole(key)
        release, stored_files = self._release(version, body), self._digests(version, paths)
        sized_wrong = release and any(
            path in stored_files and stored_files[path][0] == file.sha256 and stored_files[path][1] != file.bytes
            for path, file in release.files.items()
        )  # SHA256SUMS, which the version is the digest of, names no sizes
        if release is None or release.manifest() != body or sized_wrong:
            release = self._release_of_files(version, stored_files)
            fault = "is missing" if body is None else "is damaged"
            yield self._fault(key, fault, partial(self._bucket.put, key, release.manifest()) if release else None)
        if release is None:
            return
        for path, file in release.files.items():
            if (stored := stored_files.get(path)) != (file.sha256, file.bytes):
                at, own = self._registry.key(version, path), self._own_file(path, file.sha256)
                fault = "is missing" if stored is None else f"sha256 is {stored[0]}, the manifest says {file.sha256}"
                yield self._fault(at, fault, partial(self._registry.upload, own, version, path) if own else None)
        for path in sorted({*paths} - {MANIFEST, *release.files}):
            if not is_signature(path):
                yield self._fault(self._registry.key(version, path), "the manifest does not name it; remove it", None)
        yield from self._signatures(release, paths)

    def _digests(self, version: str, paths: list[str]) -> dict[str, tuple[str, int]]:
        """SHA-256 and size of every stored file."""
        files = [path for path in paths if path != MANIFEST and not is_signature(path)]
        with ThreadPoolExecutor(_STREAMS) as pool:
            found = pool.map(lambda path: self._bucket.digest(self._registry.key(version, path)), files)
            return {path: digest for path, digest in zip(files, found, strict=True) if digest}

    def _signatures(self, release: Release, paths: list[str]) -> Iterator[Fault]:
        own_id, own = signing.sign_release(release) or ("", b"")
        wanted = {path for path in paths if is_signature(path)} | ({signature_path(self._key.id)} if self._key else set())
        for path in sorted(wanted):
            at = self._registry.key(release.version, path)
            stored = self._bucket.read_if_whole(at)
            fault = "is missing" if stored is None else ""
            if self._key and path == signature_path(self._key.id) and stored is not None:
                try:
                    self._key.verify(release.manifest(), stored, at)
                except DataError as error:
                    fault = str(error)
            elif path == signature_path(own_id) and stored not in (None, own):
                fault = "is not that of the key in ALEXNET_SIGNING_KEY"
            if fault:
                can = path == signature_path(own_id) and self._is_own(release.version)
                yield self._fault(at, fault, partial(self._bucket.put, at, own) if can else None)

    def _is_own(self, version: str) -> bool:
        """Whether an own folder has this release."""
        return any(_version_of(folder / SUMS) == version for folder in self._folders)

    def _release(self, version: str, body: bytes | None) -> Release | None:
        try:
            release = Release.from_manifest(body or b"", MANIFEST)
        except DataError:
            return None
        return release if (release.name, release.version) == (self._registry.name, version) else None

    def _release_of_files(self, version: str, stored_files: dict[str, tuple[str, int]]) -> Release | None:
        """The release of this version, by its SHA256SUMS, where every file of it is whole in the store or at hand."""
        sums = self._bucket.read_if_whole(self._registry.key(version, SUMS)) if SUMS in stored_files else None
        own = [folder / SUMS for folder in self._folders if _version_of(folder / SUMS) == version]
        bodies = [body for body in (sums, *(path.read_bytes() for path in own)) if body]
        for body in bodies:
            if hashlib.sha256(body).hexdigest()[: len(version)] == version:
                lines = [line.partition("  ") for line in body.decode(errors="replace").splitlines()]
                digests = {path: sha256 for sha256, _, path in lines if is_path(path)}
                files = {SUMS: ReleaseFile(len(body), hashlib.sha256(body).hexdigest())}
                for path, sha256 in digests.items():
                    stored = stored_files.get(path)
                    found = self._own_file(path, sha256)
                    if stored and stored[0] == sha256:
                        files[path] = ReleaseFile(stored[1], sha256)
                    elif found:
                        files[path] = ReleaseFile(found.stat().st_size, sha256)
                    else:
                        return None
                made = Release(self._registry.name, version, dict(sorted(files.items())))
                return self._release(version, made.manifest())
        return None

    def _own_file(self, path: str, sha256: str) -> Path | None:
        """A file with these bytes, of this name, in an own folder, or in the client's cache."""
        for folder in self._folders:
            for candidate in (folder / path, folder / "blobs" / sha256, *folder.rglob(path.rpartition("/")[2])):
                if candidate.is_file():
                    with candidate.open("rb") as file:
                        if hashlib.file_digest(file, "sha256").hexdigest() == sha256:
                            return candidate
        return None


def _version_of(sums: Path) -> str | None:
    """The version whose SHA256SUMS this file is."""
    return hashlib.sha256(sums.read_bytes()).hexdigest()[:16] if sums.is_file() else None
