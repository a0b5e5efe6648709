import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.runtime.errors import Unreachable
from pipelines.sources import imagenette
from pipelines.sources.base import SourceConfig
from pipelines.sources.open import open_source

WNIDS = tuple(imagenette.NAMES)[:2]
SOURCE = Path(".local/sources/imagenette")


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    (tmp_path / "web").mkdir()
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(tmp_path / "web")))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/imagenette2-320.tgz"
    server.shutdown()
    thread.join()
    server.server_close()


def archive(*more: tuple[str, bytes]) -> bytes:
    files = [(f"imagenette2-320/{split}/{wnid}/{wnid}_{i}.JPEG", f"{split}{wnid}{i}".encode())
             for split in ("train", "val") for wnid in WNIDS for i in range(3)]  # fmt: skip
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as tar:
        for name, data in (*files, *more):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        link = tarfile.TarInfo(f"imagenette2-320/train/{WNIDS[0]}/{WNIDS[0]}_99.JPEG")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    return out.getvalue()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_the_archive_is_fetched_once_and_only_its_images_are_taken(address: str, tmp_path: Path) -> None:
    data = archive(("../../evil.JPEG", b"x"), ("/etc/evil", b"x"), ("imagenette2-320/noisy.csv", b"x"))
    (tmp_path / "web/imagenette2-320.tgz").write_bytes(data)
    source = imagenette.open_imagenette(address, sha256(data))
    items = list(source.images())
    assert [(item.split, item.wnid) for item in items].count(("val", WNIDS[1])) == 3
    assert items[0].key == f"{WNIDS[0]}_0-" + items[0].key[-16:]  # stands in both splits here
    assert len(items) == 12
    assert source.class_names()[WNIDS[0]] == "tench"
    (tmp_path / "web/imagenette2-320.tgz").unlink()
    assert list(imagenette.open_imagenette(address, sha256(data)).images()) == items
    assert not list(tmp_path.rglob("*evil*"))
    assert not list(tmp_path.rglob("*_99*"))


def test_another_archive_is_refused_and_not_kept(address: str, tmp_path: Path) -> None:
    (tmp_path / "web/imagenette2-320.tgz").write_bytes(b"changed")
    with pytest.raises(
        DataError, match=rf"imagenette2-320\.tgz: sha256 is {sha256(b'changed')}, should be {imagenette.SHA256}"
    ):
        imagenette.open_imagenette(address)
    assert not list((tmp_path / "work/.local/sources").iterdir())


def test_a_network_that_does_not_answer_may_be_tried_again(address: str) -> None:
    with pytest.raises(Unreachable, match="HTTP Error 404: .*; try again, or fetch it elsewhere and set ALEXNET_SOURCE"):
        imagenette.open_imagenette(address)
    with pytest.raises(Unreachable, match="try again"):
        imagenette.open_imagenette("http://127.0.0.1:9/none.tgz")


def test_without_a_network_the_archive_may_be_named(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_SOURCE", str(tmp_path / "mine.tgz"))
    config = SourceConfig("imagenette", 0.25, ())
    with pytest.raises(
        DataError, match=r"mine\.tgz: No such file or directory; ALEXNET_SOURCE should name imagenette2-320\.tgz"
    ):
        open_source(config)
    data = archive()
    (tmp_path / "mine.tgz").write_bytes(data)
    with pytest.raises(DataError, match="it is damaged or was changed"):
        open_source(config)
    assert (tmp_path / "mine.tgz").is_file()  # the user's own is not removed
    assert len(list(imagenette.open_imagenette(sha256=sha256(data)).images())) == 12


def test_a_damaged_archive_leaves_nothing(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cut = archive()[:-60]
    (tmp_path / "mine.tgz").write_bytes(cut)
    monkeypatch.setenv("ALEXNET_SOURCE", str(tmp_path / "mine.tgz"))
    with pytest.raises(DataError, match=r"mine\.tgz: damaged: .*; remove it and run again"):
        imagenette.open_imagenette(sha256=sha256(cut))
    assert not SOURCE.exists()
