"""The registry of published models: versions that never change, and aliases that move from one to another.

NAME/versions/VERSION/...             the files, then signatures/, then manifest.json: without it there is no such version
NAME/aliases/ALIAS.json               which version, by which digest; written only over what was read
"""

import hashlib
import json
import mimetypes
import random
import secrets
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from alexnet.errors import DataError
from pipelines.registry import release as releases
from pipelines.registry.release import MANIFEST, SIGNATURES, Release
from pipelines.runtime.errors import Exists, Missing
from pipelines.storage.bucket import Bucket

_STREAMS = 4  # files uploaded at a time
_RACES = 20  # how often an alias is tried again that others are moving
_TYPES = {".md": "text/markdown; charset=utf-8", ".html": "text/html; charset=utf-8", ".yaml": "text/yaml; charset=utf-8"}


@dataclass(frozen=True)
class Alias:
    """Where an alias points, where it pointed before, and a nonce: no two moves are the same bytes."""

    version: str
    manifest_sha256: str
    previous: str | None
    nonce: str


class Registry:
    """The versions and aliases of one model in a bucket."""

    def __init__(self, bucket: Bucket, name: str) -> None:
        self.bucket = bucket
        self.name = name

    def key(self, version: str, path: str = "") -> str:
        """Of a version's file; of its folder without one."""
        return f"{self.name}/versions/{version}/{path}"

    # Versions.

    def versions(self) -> list[str]:
        """The versions that are published whole, in no particular order of time."""
        prefix = f"{self.name}/versions/"
        found = [key[len(prefix) :].split("/", 1) for key in self.bucket.sizes(prefix)]
        return [parts[0] for parts in found if parts[1:] == [MANIFEST]]

    def manifest(self, version: str) -> bytes:
        """The bytes of a version's manifest. Raises DataError if there is no such version."""
        try:
            return self.bucket.get(self.key(version, MANIFEST))
        except Missing:
            raise DataError(f"{self.name}@{version}: no such version in {self.bucket}") from None

    def signature(self, version: str, key_id: str) -> bytes:
        """A version's signature by a key. Raises DataError if it has none."""
        try:
            return self.bucket.get(self.key(version, f"{SIGNATURES}/{key_id}.sig"))
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
        """Puts a release into the registry; whether it was not there already.

        Safe to be killed anywhere, to be repeated, and to be run by many at once: the version appears whole with its manifest.

        Args:
            release: What is in the folder.
            folder: Its files.
            signature: A key's id and its signature over the manifest.
            uploaded: Called with the path of every file that has been written.

        Raises:
            DataError: this version is there with other content, or the store does not hold to conditional writes.
        """
        self.bucket.check()
        version, body = release.version, release.manifest()
        try:
            there = self.bucket.get(self.key(version, MANIFEST))
        except Missing:
            there = None
        if there not in (None, body):
            raise DataError(
                f"{self.bucket}/{self.key(version, MANIFEST)}: exists with other content; it was changed, remove it first"
            )
        sizes = self.bucket.sizes(self.key(version)) if there else {}
        missing = [path for path, file in release.files.items() if sizes.get(self.key(version, path)) != file.bytes]
        if not there:
            self.bucket.check_conditional_writes(f"{self.name}/probes/")

        def write(path: str) -> None:
            self.bucket.upload(folder / path, self.key(version, path), content_type(path))
            uploaded(path)

        with ThreadPoolExecutor(_STREAMS) as pool:
            list(pool.map(write, missing))
        if signature:
            key_id, signed = signature
            self.bucket.put(self.key(version, f"{SIGNATURES}/{key_id}.sig"), signed, if_absent=True)
        if not there:
            self.bucket.put(self.key(version, MANIFEST), body, if_absent=True, content_type="application/json")
        return there is None

    # Aliases.

    def alias(self, alias: str) -> Alias | None:
        """Where an alias points; None if there is none."""
        return self._alias(alias)[0]

    def aliases(self) -> dict[str, Alias]:
        """All of them, by name."""
        prefix = f"{self.name}/aliases/"
        names = [key.removeprefix(prefix).removesuffix(".json") for key in self.bucket.sizes(prefix)]
        return {name: found for name in names if (found := self.alias(name))}

    def move(self, alias: str, release: Release) -> Alias:
        """Points an alias at a published release, and keeps what it pointed at before. Of several at once each wins in turn."""
        digest = hashlib.sha256(release.manifest()).hexdigest()

        def to(_: Alias | None) -> tuple[str, str]:
            return release.version, digest

        return self._move(alias, to)

    def rollback(self, alias: str) -> Alias:
        """Points an alias back at what it pointed at before; a second rollback undoes the first."""

        def to(now: Alias | None) -> tuple[str, str]:
            if now is None or now.previous is None:
                why = "no such alias" if now is None else "pointed at nothing before"
                raise DataError(f"{self.name}@{alias}: {why}; there is nothing to roll back")
            return now.previous, hashlib.sha256(self.manifest(now.previous)).hexdigest()

        return self._move(alias, to)

    def _move(self, alias: str, to: Callable[[Alias | None], tuple[str, str]]) -> Alias:
        key = f"{self.name}/aliases/{alias}.json"
        for race in range(_RACES):
            now, tag = self._alias(alias)
            version, digest = to(now)
            if now and now.version == version:
                return now
            moved = Alias(version, digest, now.version if now else None, secrets.token_hex(8))
            try:
                self.bucket.put_json(key, asdict(moved), if_match=tag, if_absent=tag is None)
                return moved
            except (Exists, Missing):
                time.sleep(random.uniform(0, 0.05 * (race + 1)))
        raise DataError(f"{self.bucket}/{key}: others moved it {_RACES} times meanwhile; run again")

    def _alias(self, alias: str) -> tuple[Alias | None, str | None]:
        key = f"{self.name}/aliases/{alias}.json"
        try:
            body, tag = self.bucket.get_with_etag(key)
        except Missing:
            return None, None
        return parse_alias(body, f"{self.bucket}/{key}"), tag


def parse_alias(body: bytes, where: str) -> Alias:
    """An alias from its bytes. Raises DataError."""
    try:
        alias = Alias(**json.loads(body))
        if not releases.is_version(alias.version) or len(alias.manifest_sha256) != 64:
            raise ValueError("version")
        return alias
    except (ValueError, TypeError):
        raise DataError(f"{where}: not an alias; the object is damaged or was changed: publish again, or remove it") from None


def content_type(path: str) -> str:
    """What a browser should take a file for."""
    return _TYPES.get(Path(path).suffix) or mimetypes.guess_type(path)[0] or "application/octet-stream"
