"""A release: the files of one published version, and the manifest that names them all.

A version is the digest of what it holds, so the same content is the same version whoever publishes it, and a version can be
checked with nothing but `sha256sum`: it is the start of the SHA-256 of SHA256SUMS.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from alexnet.errors import DataError

MANIFEST = "manifest.json"
SUMS = "SHA256SUMS"
SIGNATURES = "signatures"
DEFAULT_ALIAS = "latest"
_FORMAT = 1
_VERSION_DIGITS = 16
_WORD = re.compile(r"[a-z][a-z0-9-]{0,62}")
_VERSION = re.compile(rf"[0-9a-f]{{{_VERSION_DIGITS}}}")
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_SIGNATURE = re.compile(rf"{SIGNATURES}/[0-9a-f]{{16}}\.sig")


@dataclass(frozen=True)
class PublishConfig:
    """Under which name a model is published, and when its alias moves.

    max_top1_error: of the center crop; the alias stays where it was above it, and always moves with null.
    """

    name: str
    alias: str
    max_top1_error: float | None

    def __post_init__(self) -> None:
        for field in ("name", "alias"):
            if not is_word(getattr(self, field)):
                raise ValueError(
                    f"{field}: must be lower-case letters, digits and hyphens, a letter first, got {getattr(self, field)!r}"
                )
        if self.max_top1_error is not None and not 0 <= self.max_top1_error <= 1:
            raise ValueError(f"max_top1_error: must be null or a fraction in [0, 1], got {self.max_top1_error}")


@dataclass(frozen=True)
class File:
    """Size and digest of one file."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Release:
    """What a version holds, by path within it. The manifest itself and its signatures are not among them."""

    name: str
    version: str
    files: Mapping[str, File]

    def manifest(self) -> bytes:
        """The bytes of manifest.json: equal releases are equal bytes."""
        tree = {
            "format": _FORMAT,
            "name": self.name,
            "version": self.version,
            "files": {p: asdict(f) for p, f in self.files.items()},
        }
        return (json.dumps(tree, indent=1, sort_keys=True) + "\n").encode()

    @property
    def total_bytes(self) -> int:
        """Of all files."""
        return sum(file.bytes for file in self.files.values())


def of_folder(name: str, folder: Path) -> Release:
    """The release that a folder's files make. Writes its SHA256SUMS; a manifest and signatures that lie there do not count."""
    (folder / SUMS).unlink(missing_ok=True)
    files = scan(folder)
    sums = _sums(files)
    (folder / SUMS).write_bytes(sums)
    files[SUMS] = File(len(sums), hashlib.sha256(sums).hexdigest())
    return Release(name, _version(sums), files)


def parse(body: bytes, where: str) -> Release:
    """The release that a manifest describes, checked whole: it can name no path outside its folder, no version but its own.

    Raises:
        DataError: names `where` and what is wrong.
    """
    try:
        tree = json.loads(body)
        if tree["format"] != _FORMAT:
            raise DataError(f"{where}: format is {tree['format']!r}, this program reads {_FORMAT}; install a newer one")
        files = {_checked_path(path, where): _file(entry, path, where) for path, entry in tree["files"].items()}
        release = Release(str(tree["name"]), str(tree["version"]), files)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{where}: not a manifest: {error!r}; the object is damaged or was changed") from None
    _check_paths(files, where)
    found = _version(_sums({path: file for path, file in files.items() if path != SUMS}))
    if release.version != found:
        raise DataError(f"{where}: says version {release.version}, but its files make {found}; it was changed, do not use it")
    return release


def scan(folder: Path) -> dict[str, File]:
    """Size and digest of every file under a folder but the manifest and the signatures, in order of path.

    Raises:
        DataError: something that is not a plain file, or whose name a release may not hold.
    """
    found: dict[str, File] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise DataError(f"{path}: not a plain file; a release holds plain files only")
        if path.is_dir() or name == MANIFEST or is_signature(name):
            continue
        with path.open("rb") as file:
            found[_checked_path(name, str(folder))] = File(path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())
    return found


def differences(folder: Path, release: Release) -> list[str]:
    """How a folder's files differ from the release's, one line a file; empty if they are just these bytes and no others."""
    found = scan(folder) if folder.is_dir() else {}
    return [
        f"{path}: {'missing' if path not in found else 'not in the manifest' if path not in release.files else 'changed'}"
        for path in sorted(found.keys() | release.files.keys())
        if found.get(path) != release.files.get(path)
    ]


def parse_reference(text: str) -> tuple[str, str]:
    """Name, and version or alias, of `NAME`, `NAME@ALIAS` or `NAME@VERSION`."""
    name, at, selector = text.partition("@")
    selector = selector if at else DEFAULT_ALIAS
    if not is_word(name) or not (is_word(selector) or is_version(selector)):
        raise DataError(
            f"{text!r}: not a model; write NAME, NAME@ALIAS or NAME@VERSION, for instance alexnet@latest "
            f"(a version has {_VERSION_DIGITS} digits 0-9a-f)"
        )
    return name, selector


def is_signature(path: str) -> bool:
    """Whether it is where a signature over the manifest lies."""
    return _SIGNATURE.fullmatch(path) is not None


def is_version(text: str) -> bool:
    """Whether it reads as a version."""
    return _VERSION.fullmatch(text) is not None


def is_word(text: str) -> bool:
    """Whether it may name a model or an alias; never what reads as a version."""
    return _WORD.fullmatch(text) is not None and not is_version(text)


def _sums(files: Mapping[str, File]) -> bytes:
    """SHA256SUMS as `sha256sum -c` reads it."""
    return "".join(f"{files[path].sha256}  {path}\n" for path in sorted(files)).encode()


def _version(sums: bytes) -> str:
    return hashlib.sha256(sums).hexdigest()[:_VERSION_DIGITS]


def _file(entry: dict[str, object], path: str, where: str) -> File:
    size, digest = entry["bytes"], entry["sha256"]
    if type(size) is not int or size < 0 or not isinstance(digest, str) or not _SHA256.fullmatch(digest):
        raise DataError(f"{where}: {path}: must have bytes and a sha256, got {entry!r}")
    return File(size, digest)


def _checked_path(path: str, where: str) -> str:
    parts = path.split("/")
    if not all(_PART.fullmatch(part) for part in parts) or parts[0] in (MANIFEST, SIGNATURES):
        raise DataError(f"{where}: {path!r} is no path of a release; allowed: letters, digits, `._-`, folders by `/`, no `..`")
    return path


def _check_paths(files: Mapping[str, File], where: str) -> None:
    """No two paths that one file system takes for the same, no file that is a folder of another, and the digests' own file."""
    folded = {path.lower() for path in files}
    folders = {"/".join(path.lower().split("/")[:depth]) for path in files for depth in range(1, path.count("/") + 1)}
    if len(folded) != len(files) or folded & folders:
        raise DataError(f"{where}: two of its paths collide; it was changed, do not use it")
    sums = _sums({path: file for path, file in files.items() if path != SUMS})
    if files.get(SUMS) != File(len(sums), hashlib.sha256(sums).hexdigest()):
        raise DataError(f"{where}: {SUMS} does not name its files; it was changed, do not use it")
