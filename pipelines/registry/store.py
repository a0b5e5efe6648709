"""The registry of published models: versions that never change, and aliases that move from one to another.

NAME/versions/VERSION/...             the files, then signatures/, then manifest.json: without it there is no such version
NAME/aliases/, NAME/history/          see `aliases`
"""

import hashlib
import mimetypes
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from alexnet.errors import DataError
from alexnet.files.strict import loads
from pipelines.registry.aliases import Alias, AliasHistory, Record, Target, Why
from pipelines.registry.release import MANIFEST, Release, signature_path, version_folder
from pipelines.registry.signing import PublicKey
from pipelines.runtime.errors import Denied, Exists, Missing, Unreachable

if TYPE_CHECKING:
    from pipelines.storage.bucket import Bucket

_STREAMS = 4  # files uploaded at a time
_PUBLISH = Why("publish")
_TYPES = {".md": "text/markdown; charset=utf-8", ".html": "text/html; charset=utf-8", ".yaml": "text/yaml; charset=utf-8"}


class Registry:
    """The versions and aliases of one model in a bucket."""

    def __init__(self, bucket: "Bucket", name: str) -> None:
        self.bucket = bucket
        self.name = name

    def key(self, version: str, path: str = "") -> str:
        """Of a version's file; of its folder without one."""
        return version_folder(self.name, version) + path

    # Versions.

    def versions(self) -> list[str]:
        """The complete versions, those with a manifest, in order of name."""
        paths = [key.removeprefix(f"{self.name}/versions/") for key in self.bucket.sizes(f"{self.name}/versions/")]
        return [path.split("/")[0] for path in paths if path.split("/")[1:] == [MANIFEST]]

    def manifest(self, version: str) -> bytes:
        """The bytes of a version's manifest. Raises DataError if there is no such version."""
        try:
            return self.bucket.get(self.key(version, MANIFEST))
        except Missing:
            raise DataError(f"{self.name}@{version}: no such version in {self.bucket}") from None

    def signature(self, version: str, key_id: str) -> bytes:
        """A version's signature by a key. Raises DataError if it has none."""
        try:
            return self.bucket.get(self.key(version, signature_path(key_id)))
        except Missing:
            raise DataError(
                f"{self.name}@{version}: not signed by key {key_id}; publish it with the ALEXNET_SIGNING_KEY that belongs to "
                "ALEXNET_VERIFY_KEY, or do not use it"
            ) from None

    def publish(
        self,
        release: Release,
        folder: Path,
        signature: tuple[str, bytes] | None,
        uploaded: Callable[[str], None] = lambda path: None,
    ) -> bool:
        """Uploads what is missing or damaged of a release, its manifest last. Returns whether it is new.

        A version is the digest of its files, so that a manifest or file with other bytes at its place can only be damaged.

        Args:
            release: Of the folder.
            folder: Its files.
            signature: A key's id and its signature over the manifest.
            uploaded: Called with the path of every file that was uploaded.

        Raises:
            DataError: this version's manifest is of a newer program, or the store ignores conditional writes.
        """
        self.bucket.check()
        version, body = release.version, release.manifest()
        manifest = self.key(version, MANIFEST)
        present = self.bucket.read_if_whole(manifest)
        if present is None:
            self.bucket.check_conditional_writes(f"{self.name}/probes/")
        if present != body and _is_newer(present):
            raise DataError(f"{self.bucket}/{manifest}: is of a newer program; publish with that one")

        def is_whole(path: str) -> bool:
            file = release.files[path]
            return self.bucket.digest(self.key(version, path)) == (file.sha256, file.bytes)

        with ThreadPoolExecutor(_STREAMS) as pool:
            paths = list(release.files)
            whole = pool.map(is_whole, paths) if present is not None else [False] * len(paths)
            missing = [path for path, is_there in zip(paths, whole, strict=True) if not is_there]

        def upload(path: str) -> None:
            self.upload(folder / path, version, path)
            uploaded(path)

        with ThreadPoolExecutor(_STREAMS) as pool:
            list(pool.map(upload, missing))
        if signature:
            key_id, signed = signature
            if self.bucket.read_if_whole(self.key(version, signature_path(key_id))) != signed:
                self.bucket.put(self.key(version, signature_path(key_id)), signed)
        if present != body:
            self.bucket.put(manifest, body, if_absent=present is None, content_type="application/json")
        return present is None

    def upload(self, file: Path, version: str, path: str) -> None:
        """Writes a version's file."""
        self.bucket.upload(file, self.key(version, path), _content_type(path))

    # Aliases.

    def alias(self, alias: str) -> Alias | None:
        """Where an alias points; None if there is none."""
        return AliasHistory(self.bucket, self.name, alias).read()

    def aliases(self, torn: list[DataError] | None = None) -> dict[str, Alias]:
        """All that can be read, by name. torn: gets the errors of the others."""
        prefix = f"{self.name}/aliases/"
        found: dict[str, Alias] = {}
        for name in (key.removeprefix(prefix).removesuffix(".json") for key in self.bucket.sizes(prefix)):
            try:
                alias = self.alias(name)
            except (Denied, Unreachable):
                raise
            except DataError as error:
                if torn is not None:
                    torn.append(error)
                continue
            if alias:
                found[name] = alias
        return found

    def history(self, alias: str, key: PublicKey | None = None) -> list[Record]:
        """Every move of an alias, the first one first, see `AliasHistory.records`."""
        return AliasHistory(self.bucket, self.name, alias).records(key)

    def move(self, alias: str, release: Release, why: Why = _PUBLISH) -> Alias:
        """Points an alias at a published release, and records what it pointed at before. Concurrent moves happen in turn."""
        return AliasHistory(self.bucket, self.name, alias).move(lambda current: _target(release), why)

    def replace(self, alias: str, before: str | None, release: Release, why: Why) -> Alias:
        """The same, if the alias still points at the version `before`; None: if there is none. Raises Exists otherwise."""

        def target(current: Alias | None) -> Target:
            if (current.version if current else None) not in (before, release.version):
                raise Exists(f"{self.name}@{alias}: another run has moved it to {current.version if current else 'nothing'}")
            return _target(release)

        return AliasHistory(self.bucket, self.name, alias).move(target, why)

    def rollback(self, alias: str, reason: str = "") -> Alias:
        """Points an alias back at what it pointed at before; a second rollback undoes the first."""

        def previous(current: Alias | None) -> Target:
            if current is None or current.previous is None:
                why = "no such alias" if current is None else "pointed at nothing before"
                raise DataError(f"{self.name}@{alias}: {why}; there is nothing to roll back")
            return current.previous, hashlib.sha256(self.manifest(current.previous)).hexdigest()

        return AliasHistory(self.bucket, self.name, alias).move(previous, Why("rollback", reason))


def _target(release: Release) -> Target:
    return release.version, hashlib.sha256(release.manifest()).hexdigest()


def _is_newer(manifest: bytes | None) -> bool:
    """Whether it has a form that this program does not know."""
    try:
        return int(loads(manifest or b"")["format"]) > 1
    except (ValueError, KeyError, TypeError):
        return False


def _content_type(path: str) -> str:
    return _TYPES.get(Path(path).suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
