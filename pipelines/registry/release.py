"""A release: the files of one published version, and the manifest that lists them.

A version is named by the digest of its content, so equal content is the same version whoever publishes it, and `sha256sum` is
enough to check one: it is the start of the SHA-256 of SHA256SUMS.
"""

import hashlib
import re
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from alexnet.config import parse_json, to_json
from alexnet.errors import DataError
from alexnet.files.strict import shown

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
SIGNATURES = "signatures"
DEFAULT_ALIAS = "latest"
CHAMPION = "champion"
_VERSION_DIGITS = 16
_NAME = re.compile(r"[a-z][a-z0-9-]{0,62}")
_VERSION = re.compile(rf"[0-9a-f]{{{_VERSION_DIGITS}}}")
_PATH_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|$)|.*\.$")  # what Windows cannot have
_LEVELS = 16
_READERS = 4  # files digested at a time: weights and exports are hundreds of MB each
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(rf"{SIGNATURES}/[0-9a-f]{{16}}\.sig")


Export = Literal["onnx", "pt2"]


@dataclass(frozen=True)
class PublishConfig:
    """Under which name a model is published, in which other forms, and when its alias moves.

    max_top1_error: of the center crop; no alias moves to a model above it; null: any error is allowed.
    must_beat_baselines: no alias moves to a model whose error is not below that of majority and of ridge.
    margin: by how much a champion's error may be above that of the champion before, a fraction; see `publishing.promotion`.
    """

    name: str
    alias: str
    exports: tuple[Export, ...]
    max_top1_error: float | None
    must_beat_baselines: bool
    margin: float

    def __post_init__(self) -> None:
        for field in ("name", "alias"):
            if not is_name(getattr(self, field)):
                raise ValueError(
                    f"{field}: must be lower-case letters, digits and hyphens, a letter first, got {getattr(self, field)!r}"
                )
        if self.max_top1_error is not None and not 0 <= self.max_top1_error <= 1:
            raise ValueError(f"max_top1_error: must be null or a fraction in [0, 1], got {self.max_top1_error}")
        if not 0 <= self.margin <= 1:
            raise ValueError(f"margin: must be a fraction in [0, 1], got {self.margin}")
        if self.alias == CHAMPION:
            raise ValueError(f"alias: must not be {CHAMPION}, which follows a rule of its own")


@dataclass(frozen=True)
class ReleaseFile:
    """Size and digest of one file."""

    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if self.bytes < 0:
            raise ValueError(f"bytes: must be at least 0, got {self.bytes}")
        if not _SHA256.fullmatch(self.sha256):
            raise ValueError(f"sha256: must be 64 digits 0-9a-f, got {self.sha256!r}")


@dataclass(frozen=True)
class Release:
    """The files of a version by path, without the manifest itself and its signatures. format: of the manifest."""

    name: str
    version: str
    files: Mapping[str, ReleaseFile]
    format: Literal[1] = 1

    @classmethod
    def from_folder(cls, name: str, folder: Path) -> "Release":
        """The release of a folder's files but its manifest and signatures. Writes the folder's SHA256SUMS."""
        (folder / SUMS).unlink(missing_ok=True)
        files = scan(folder)
        sums = _sums(files)
        (folder / SUMS).write_bytes(sums)
        return cls(name, _version(sums), files | {SUMS: ReleaseFile(len(sums), hashlib.sha256(sums).hexdigest())})

    @classmethod
    def from_manifest(cls, body: bytes, where: str) -> "Release":
        """The release that a manifest describes; `where` it comes from is named by errors.

        Raises:
            DataError: it is malformed, names a path outside its folder, or does not agree with its own version.
        """
        release = parse_json(cls, body, where, "it is damaged, or of a newer program")
        release._check(where)
        return release

    def _check(self, where: str) -> None:
        for path in self.files:
            _check_path(path, where)
        # No two paths that one file system takes for the same, and no file that is also a folder.
        lowered = {path.lower() for path in self.files}
        folders = {parent.as_posix() for path in lowered for parent in Path(path).parents}
        if len(lowered) != len(self.files) or lowered & folders:
            raise DataError(f"{where}: two of its paths collide; it was changed, do not use it")
        sums = _sums(self.files)
        if self.files.get(SUMS) != ReleaseFile(len(sums), hashlib.sha256(sums).hexdigest()):
            raise DataError(f"{where}: {SUMS} does not name its files; it was changed, do not use it")
        if self.version != _version(sums):
            raise DataError(
                f"{where}: says version {self.version}, but its files make {_version(sums)}; it was changed, do not use it"
            )

    def manifest(self) -> bytes:
        """The bytes of manifest.json: equal releases are equal bytes."""
        return to_json(self)

    def differences(self, folder: Path) -> list[str]:
        """How a folder's files differ from the release's, one line per file; empty if they are these bytes and no others."""
        found = scan(folder) if folder.is_dir() else {}
        return [
            f"{path}: {'missing' if path not in found else 'not in the manifest' if path not in self.files else 'changed'}"
            for path in sorted(found.keys() | self.files.keys())
            if found.get(path) != self.files.get(path)
        ]

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files.values())


def scan(folder: Path) -> dict[str, ReleaseFile]:
    """Size and digest of every file under a folder but the manifest and the signatures, in order of path.

    Raises:
        DataError: something is not a plain file, or has a name that a release may not hold.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DataError(f"{path}: not a plain file; a release holds plain files only")
        if path.is_dir() or name == MANIFEST or is_signature(name):
            continue
        _check_path(name, str(folder))
        found[name] = path
    with ThreadPoolExecutor(_READERS) as pool:
        return dict(zip(found, pool.map(_digest, found.values()), strict=True))


def _digest(path: Path) -> ReleaseFile:
    with path.open("rb") as file:
        return ReleaseFile(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def parse_reference(text: str) -> tuple[str, str]:
    """Name, and version or alias, of `NAME`, `NAME@ALIAS` or `NAME@VERSION`."""
    name, at, selector = text.partition("@")
    selector = selector if at else DEFAULT_ALIAS
    if not is_name(name) or not (is_name(selector) or is_version(selector)):
        raise DataError(
            f"{text!r}: not a model; write NAME, NAME@ALIAS or NAME@VERSION, for instance alexnet@latest "
            f"(a version has {_VERSION_DIGITS} digits 0-9a-f)"
        )
    return name, selector


def version_folder(name: str, version: str) -> str:
    """What the keys of a version's files start with."""
    return f"{name}/versions/{version}/"


def signature_path(key_id: str) -> str:
    """Where a version has the signature by this key."""
    return f"{SIGNATURES}/{key_id}.sig"


def is_signature(path: str) -> bool:
    """Whether it is the path of a signature."""
    return _SIGNATURE.fullmatch(path) is not None


def is_version(text: str) -> bool:
    """Whether it has the form of a version."""
    return _VERSION.fullmatch(text) is not None


def is_name(text: str) -> bool:
    """Whether it may name a model or an alias: it does not have the form of a version."""
    return _NAME.fullmatch(text) is not None and not is_version(text)


def _sums(files: Mapping[str, ReleaseFile]) -> bytes:
    """SHA256SUMS of all files but itself, as `sha256sum -c` reads it."""
    return "".join(f"{files[path].sha256}  {path}\n" for path in sorted(files) if path != SUMS).encode()


def _version(sums: bytes) -> str:
    return hashlib.sha256(sums).hexdigest()[:_VERSION_DIGITS]


def is_path(path: str) -> bool:
    """Whether it may be the path of a release's file."""
    parts = path.split("/")
    fits = len(parts) <= _LEVELS and all(_PATH_PART.fullmatch(part) and not _RESERVED.match(part) for part in parts)
    return fits and parts[0].lower() not in (MANIFEST, SIGNATURES)


def _check_path(path: str, where: str) -> None:
    if not is_path(path):
        raise DataError(
            f"{where}: {shown(path)} is no path of a release; allowed: letters, digits, `._-`, folders by `/`, no `..`, "
            f"at most {_LEVELS} levels, nothing that ends in a dot or that a system keeps for itself"
        )
