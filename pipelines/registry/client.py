"""The registry's client: a published version on this machine, every byte of it verified before it can be seen.

What was fetched is kept by its SHA-256 under ALEXNET_REGISTRY_CACHE (~/.cache/alexnet unless set), so that a version is fetched
once, a fetch that was killed goes on where it was, and `--offline` needs no store.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write_bytes
from pipelines.registry import release as releases
from pipelines.registry.release import MANIFEST, SIGNATURES, Release
from pipelines.registry.signing import PublicKey
from pipelines.registry.store import Registry
from pipelines.runtime.console import track_bytes
from pipelines.runtime.errors import Denied, Unreachable
from pipelines.storage.bucket import Bucket

_STREAMS = 8  # files fetched at a time
_CHUNK = 1 << 20


def cache_folder() -> Path:
    """ALEXNET_REGISTRY_CACHE: where fetched releases are kept, for all projects of this user."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ALEXNET_REGISTRY_CACHE") or Path(base) / "alexnet")


class Client:
    """Fetches releases.

    Args:
        bucket: Of the registry; None where there is none to ask: only what the cache holds can be had.
        cache: The folder of what was fetched.
        key: Releases must be signed by it; None takes any.
    """

    def __init__(self, bucket: Bucket | None, cache: Path, key: PublicKey | None = None) -> None:
        self._bucket, self._cache, self._key = bucket, cache, key

    def pull(self, reference: str, to: Path | None = None) -> tuple[Release, Path]:
        """A release and the folder it lies in: `to`, or one in the cache that is not to be changed.

        Raises:
            DataError: there is no such version, something of it is not what its manifest says, it is not signed as it must be,
                or `to` holds something else.
        """
        name, selector = releases.parse_reference(reference)
        body = self._manifest(name, selector)
        release = releases.parse(body, f"{name}@{selector}: {MANIFEST}")
        if release.name != name or (releases.is_version(selector) and release.version != selector):
            raise DataError(
                f"{name}@{selector}: its manifest is that of {release.name}@{release.version}; it was changed, do not use it"
            )
        signature = self._signature(name, release, body)
        folder = to or self._cache / "releases" / name / release.version
        if folder.is_dir() and not releases.differences(folder, release):
            _write_papers(folder, body, signature)
            return release, folder
        if to and to.exists():
            _check_replaceable(to)
        self._refuse_extras(name, release)
        self._fetch_all(name, release)
        self._lay_out(folder, release, body, signature)
        return release, folder

    # Which release.

    def _manifest(self, name: str, selector: str) -> bytes:
        """The manifest's bytes, remembered under what was asked for."""
        memory = self._cache / "manifests" / name / f"{selector}.json"
        if self._bucket is None:
            with contextlib.suppress(FileNotFoundError):
                return memory.read_bytes()
            raise DataError(f"{name}@{selector}: not in {self._cache}; pull it once without --offline")
        registry = Registry(self._bucket, name)
        try:
            body = self._from_registry(registry, selector)
        except Unreachable as error:
            advice = f"; it was pulled before: use --offline for what {self._cache} holds" if memory.exists() else ""
            raise Unreachable(f"{error}{advice}") from error
        atomic_write_bytes(memory, body)
        return body

    def _from_registry(self, registry: Registry, selector: str) -> bytes:
        if releases.is_version(selector):
            return registry.manifest(selector)
        alias = registry.alias(selector)
        if alias is None:
            known = ", ".join(sorted(registry.aliases())) or "none"
            raise DataError(f"{registry.name}@{selector}: no such alias in {registry.bucket}; it has: {known}")
        body = registry.manifest(alias.version)
        if hashlib.sha256(body).hexdigest() != alias.manifest_sha256:
            raise DataError(
                f"{registry.name}@{selector}: the manifest of {alias.version} is not the one the alias was given; "
                "it was changed, do not use it"
            )
        return body

    def _signature(self, name: str, release: Release, body: bytes) -> tuple[str, bytes] | None:
        if self._key is None:
            return None
        memory = self._cache / SIGNATURES / f"{hashlib.sha256(body).hexdigest()}.{self._key.id}.sig"
        if self._bucket is not None:
            signature = Registry(self._bucket, name).signature(release.version, self._key.id)
        elif memory.exists():
            signature = memory.read_bytes()
        else:
            raise DataError(
                f"{name}@{release.version}: no signature by key {self._key.id} in {self._cache}; pull it without --offline"
            )
        self._key.verify(body, signature, f"{name}@{release.version}")
        atomic_write_bytes(memory, signature)
        return self._key.id, signature

    def _refuse_extras(self, name: str, release: Release) -> None:
        """Raises if the version's folder holds what its manifest does not name: `aws s3 cp --recursive` would bring it."""
        if self._bucket is None:
            return
        prefix = Registry(self._bucket, name).key(release.version)
        try:
            found = {key.removeprefix(prefix) for key in self._bucket.sizes(prefix)}
        except Denied:
            return  # a reader that may not list cannot copy the folder either
        known = {MANIFEST, *release.files}
        if extra := sorted(path for path in found - known if not releases.is_signature(path)):
            raise DataError(
                f"{self._bucket}/{prefix}: holds {', '.join(extra)}, which the manifest does not name; do not use it"
            )

    # Its files.

    def _blob(self, sha256: str) -> Path:
        return self._cache / "blobs" / sha256

    def _fetch_all(self, name: str, release: Release) -> None:
        """Every file of the release into the cache."""
        wanted = {file.sha256: path for path, file in release.files.items()}
        missing = {digest: path for digest, path in wanted.items() if not _is(self._blob(digest), digest)}
        if missing and self._bucket is None:
            raise DataError(
                f"{name}@{release.version}: {', '.join(missing.values())} not in {self._cache}; pull it without --offline"
            )
        total = sum(release.files[path].bytes for path in missing.values())
        with track_bytes(total, f"{name}@{release.version}") as came, ThreadPoolExecutor(_STREAMS) as pool:
            jobs = [pool.submit(self._fetch, name, release, path, came) for path in missing.values()]
            try:
                for job in jobs:
                    job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise

    def _fetch(self, name: str, release: Release, path: str, came: Callable[[int], None]) -> None:
        """One file; damaged on its way it is fetched once more, from its start."""
        assert self._bucket is not None
        key, file = Registry(self._bucket, name).key(release.version, path), release.files[path]
        blob = self._blob(file.sha256)
        with _part_of(blob) as part:
            found = _append(self._bucket, key, part, file.bytes, came)
            if found != file.sha256:
                part.unlink()
                found = _append(self._bucket, key, part, file.bytes, lambda count: None)
            if found != file.sha256:
                part.unlink()
                raise DataError(
                    f"{self._bucket}/{key}: sha256 is {found}, the manifest says {file.sha256}, also when fetched again; "
                    "it was damaged or changed, do not use it"
                )
            part.chmod(0o444)
            part.replace(blob)

    def _lay_out(self, folder: Path, release: Release, body: bytes, signature: tuple[str, bytes] | None) -> None:
        """The folder appears whole, beside whatever was there before, in one rename."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        is_ours = folder.is_relative_to(self._cache)  # one copy is enough where nobody writes
        beside = folder.with_name(f".{folder.name}.{os.getpid()}.part")
        shutil.rmtree(beside, ignore_errors=True)
        try:
            for path, file in release.files.items():
                target = beside / path
                target.parent.mkdir(parents=True, exist_ok=True)
                if is_ours:
                    target.hardlink_to(self._blob(file.sha256))
                else:
                    shutil.copyfile(self._blob(file.sha256), target)
            _write_papers(beside, body, signature)
            if wrong := releases.differences(beside, release):
                raise DataError(f"{folder}: {wrong[0]} while it was copied; check the disk")
            _exchange(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)


def _append(bucket: Bucket, key: str, part: Path, size: int, came: Callable[[int], None]) -> str:
    """The SHA-256 of the part file once the object's bytes from its end on are appended."""
    digest = hashlib.sha256()
    with part.open("a+b") as file:
        file.seek(0)
        while chunk := file.read(_CHUNK):  # what a killed pull left
            digest.update(chunk)
            came(len(chunk))
        if file.tell() < size:
            for chunk in bucket.stream(key, file.tell(), size - file.tell()):
                digest.update(chunk)
                file.write(chunk)
                came(len(chunk))
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


@contextlib.contextmanager
def _part_of(blob: Path) -> Iterator[Path]:
    """The blob's part file, kept when the block fails; one of this process's own while another process fills the shared one."""
    blob.with_name("locks").mkdir(parents=True, exist_ok=True)
    with (blob.with_name("locks") / blob.name).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            own = blob.with_name(f"{blob.name}.{os.getpid()}.part")
            try:
                yield own
            finally:
                own.unlink(missing_ok=True)
        else:
            yield blob.with_name(f"{blob.name}.part")


def _write_papers(folder: Path, body: bytes, signature: tuple[str, bytes] | None) -> None:
    """The manifest and its signature, beside the files they speak of."""
    papers = {folder / MANIFEST: body} | ({folder / SIGNATURES / f"{signature[0]}.sig": signature[1]} if signature else {})
    for path, text in papers.items():
        if not path.is_file() or path.read_bytes() != text:
            atomic_write_bytes(path, text)


def _check_replaceable(folder: Path) -> None:
    """Raises unless the folder is an untouched release, or empty: then a newer one may take its place."""
    if folder.resolve() == Path.cwd():
        raise DataError(f"{folder}: is the current folder; choose one that is not there yet")
    try:
        there = releases.parse((folder / MANIFEST).read_bytes(), str(folder / MANIFEST))
        wrong = releases.differences(folder, there)
    except (OSError, DataError):
        wrong = ["no release"]
    if wrong and any(folder.iterdir() if folder.is_dir() else [folder]):
        raise DataError(
            f"{folder}: exists and is not a release as it was pulled ({wrong[0]}); choose another folder, or remove this one"
        )


def _exchange(new: Path, folder: Path) -> None:
    """Renames `new` to `folder`; what was there is gone only when it is in place."""
    old = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    shutil.rmtree(old, ignore_errors=True)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _is(path: Path, sha256: str) -> bool:
    """Whether the file is there with this digest; one that is damaged is removed."""
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return False
    if found != sha256:
        path.unlink()
    return found == sha256
