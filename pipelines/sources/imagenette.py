"""The source `imagenette`: 13,394 photographs of ten classes of ImageNet, in an archive that is downloaded once."""

import hashlib
import re
import tarfile
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path

from alexnet.errors import DataError
from alexnet.files.atomic import atomic_write
from pipelines.runtime import console, environment
from pipelines.runtime.errors import Unreachable
from pipelines.sources.archives.tar_stream import LARGEST
from pipelines.sources.folder import FolderSource
from pipelines.sources.packaged import write_once
from pipelines.sources.places import LocalFolder

URL = "https://s3.amazonaws.com/fast-ai-imageclas/imagenette2-320.tgz"
SHA256 = "569b4497c98db6dd29f335d1f109cf315fe127053cedf69010d047f0188e158c"
NAMES = {
    "n01440764": "tench",
    "n02102040": "English springer",
    "n02979186": "cassette player",
    "n03000684": "chain saw",
    "n03028079": "church",
    "n03394916": "French horn",
    "n03417042": "garbage truck",
    "n03425413": "gas pump",
    "n03445777": "golf ball",
    "n03888257": "parachute",
}
_IMAGE = re.compile(r"[^/]+/((?:train|val)/n\d{8}/[A-Za-z0-9_]+\.JPEG)")
_PIECE = 1 << 20


def open_imagenette(url: str = URL, sha256: str = SHA256) -> FolderSource:
    """The photographs, unpacked to .local/sources/imagenette. ALEXNET_SOURCE may name the archive, where there is no network.

    Raises:
        DataError: The archive is missing, damaged, or another one.
        Unreachable: The download failed.
    """
    root = environment.SHARED / "sources" / "imagenette"
    if not root.is_dir():
        given = environment.source()
        archive = Path(given) if given else environment.SHARED / "sources" / f"imagenette-{sha256[:16]}.tgz"
        if not given and not archive.is_file():
            _download(url, archive)
        try:
            with archive.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise DataError(f"{archive}: {error.strerror}; ALEXNET_SOURCE should name imagenette2-320.tgz") from None
        if found != sha256:
            if not given:
                archive.unlink()
            where = given or url
            raise DataError(f"{where}: sha256 is {found}, should be {sha256}; it is damaged or was changed, fetch it again")
        write_once(root, lambda: _images(archive))
    return FolderSource(LocalFolder(root, by_digest=True), "imagenette", NAMES, name_is_key=True)


def _download(url: str, archive: Path) -> None:
    try:
        with (
            urllib.request.urlopen(url, timeout=60) as reply,  # noqa: S310 - our own https address
            atomic_write(archive) as part,
            part.open("wb") as file,
        ):
            size = int(reply.headers.get("Content-Length") or 0)
            pieces = iter(lambda: reply.read(_PIECE), b"")
            for piece in console.track(pieces, -(-size // _PIECE), "imagenette", unit="MiB"):
                file.write(piece)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        raise Unreachable(f"{url}: {error}; try again, or fetch it elsewhere and set ALEXNET_SOURCE to the file") from None


def _images(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Path and bytes of every image; other members are ignored."""
    try:
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                match = _IMAGE.fullmatch(member.name)
                body = tar.extractfile(member) if match and member.isreg() and member.size <= LARGEST else None
                if match and body:
                    yield match[1], body.read()
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise DataError(f"{archive}: damaged: {error}; remove it and run again") from None
