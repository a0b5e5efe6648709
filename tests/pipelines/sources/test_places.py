import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.sources.base import SourceConfig
from pipelines.sources.layout import LeftOut, take
from pipelines.sources.open import open_source
from pipelines.sources.places import BucketFolder, LocalFolder, folder_of


def made(root: Path) -> LocalFolder:
    for name in ("a", "b"):
        (root / name).mkdir(parents=True)
        (root / name / "1.jpg").write_bytes(b"12345678")
    return LocalFolder(root)


@pytest.mark.parametrize("prefix", ["data#2/", "a?b/", "100%25/", "a//b/", " space/", "猫/", ""])
def test_a_prefix_is_taken_literally(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_SOURCE", f"s3://bucket/{prefix.removesuffix('/')}")
    assert folder_of(SourceConfig("folder", 0.25, ()))[0] == BucketFolder("bucket", prefix)


def test_a_place_without_a_bucket_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_SOURCE", "s3:///photos")
    with pytest.raises(DataError, match="'s3:///photos' has no bucket; write s3://BUCKET/PREFIX"):
        folder_of(SourceConfig("folder", 0.25, ()))


def test_a_file_replaced_with_the_same_size_and_time_is_another(tmp_path: Path) -> None:
    folder = made(tmp_path)
    before = folder.list()
    path = tmp_path / "a/1.jpg"
    status = path.stat()
    path.write_bytes(b"87654321")
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)
    assert [a == b for a, b in zip(before, folder.list(), strict=True)] == [False, True]


def test_digests_are_the_same_wherever_the_files_lie(tmp_path: Path) -> None:
    for name in ("here", "there"):
        made(tmp_path / name)
        (tmp_path / name / "a/.DS_Store").touch()
    here, there = (LocalFolder(tmp_path / name, by_digest=True).list() for name in ("here", "there"))
    assert here == there
    (tmp_path / "there/b/1.jpg").write_bytes(b"87654321")
    assert here != LocalFolder(tmp_path / "there", by_digest=True).list()


def test_litter_is_listed_and_not_looked_into(tmp_path: Path) -> None:
    folder = made(tmp_path)
    for name in ("@eaDir", ".thumbnails"):
        (tmp_path / "a" / name).mkdir()
        (tmp_path / "a" / name / "1.jpg").touch()
    (tmp_path / "a/.#1.jpg").symlink_to("nowhere")
    assert [file.path for file in folder.list()] == ["a/.#1.jpg", "a/.thumbnails/", "a/1.jpg", "a/@eaDir/", "b/1.jpg"]


def test_what_is_neither_file_nor_folder_is_named(tmp_path: Path) -> None:
    folder = made(tmp_path)
    os.mkfifo(tmp_path / "a/2.jpg")
    with pytest.raises(DataError, match=r"a/2\.jpg: neither a file nor a folder; remove it"):
        folder.list()


def test_a_file_that_went_away_is_named(tmp_path: Path) -> None:
    source = made(tmp_path)
    (tmp_path / "a/1.jpg").unlink()
    with pytest.raises(DataError, match=r"a/1\.jpg: No such file or directory; the source changed or is damaged"):
        source.read("a/1.jpg", 0, 5)


def test_links_that_lead_nowhere_or_round_are_named(tmp_path: Path) -> None:
    source = made(tmp_path / "source")
    link = tmp_path / "source/b/2.jpg"
    for target in ("gone.jpg", "2.jpg"):
        link.symlink_to(target)
        with pytest.raises(DataError, match=r"b/2\.jpg: .*; a link that leads nowhere, or no right to read it; mend it"):
            LocalFolder(tmp_path / "source").list()
        link.unlink()
    (tmp_path / "source/b/more").symlink_to("..")
    with pytest.raises(DataError, match="b/more: a link to a folder that it lies in; remove it"):
        LocalFolder(tmp_path / "source").list()
    (tmp_path / "source/b/more").unlink()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/3.jpg").write_bytes(b"3")
    (tmp_path / "source/b/more").symlink_to(tmp_path / "elsewhere")
    assert [file.path for file in source.list()] == ["a/1.jpg", "b/1.jpg", "b/more/3.jpg"]


def test_a_name_that_is_no_text_is_named(tmp_path: Path) -> None:
    made(tmp_path)
    (tmp_path / "b" / os.fsdecode(b"\xff.jpg")).write_bytes(b"")
    with pytest.raises(DataError, match=r"b/\\xff\.jpg: a name that is not UTF-8; rename it"):
        LocalFolder(tmp_path).list()


def _link(root: Path) -> None:
    (root / "b/2 [x].jpg").symlink_to("gone.jpg")


def _loop(root: Path) -> None:
    (root / "b/2.jpg").symlink_to("2.jpg")


def _parent(root: Path) -> None:
    (root / "b/more").symlink_to("..")


def _pipe(root: Path) -> None:
    os.mkfifo(root / "b/猫.jpg")


def _no_text(root: Path) -> None:
    (root / "b" / os.fsdecode(b"\xff\xfe-2.jpg")).touch()


def _broken_folder(root: Path) -> None:
    (root / "b/old").mkdir()
    (root / "b/old/4.jpg").touch()
    (root / "b/old/5.jpg").symlink_to("gone.jpg")


@pytest.mark.parametrize("fault", [_link, _loop, _parent, _pipe, _no_text, _broken_folder])
def test_what_is_ignored_is_not_judged(fault: Callable[[Path], None], tmp_path: Path) -> None:
    """By the setting that the error names, and by the name at any depth of all that lies beside the two images."""
    folder = made(tmp_path)
    fault(tmp_path)
    with pytest.raises(DataError, match=r", or set source\.ignore to \[.*\] in params.yaml$") as refused:
        folder.list()
    (pattern,) = json.loads(re.findall(r"to (\[.*\]) in", str(refused.value))[0])
    for ignore in (pattern,), ("b/[!1]*",), ("b",):
        config = SourceConfig("folder", 0.25, (), ignore=ignore)
        out = LeftOut()
        files = take(LocalFolder(tmp_path, ignore=ignore).list(), config, out)
        assert {file.path for file in files} - {"b/old/4.jpg"} == {"a/1.jpg"} | ({"b/1.jpg"} if ignore != ("b",) else set())
        assert out.ignored.keys() == {*ignore}


def test_fetch_leaves_out_what_source_ignore_names_before_it_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made(tmp_path)
    _link(tmp_path)
    monkeypatch.setenv("ALEXNET_SOURCE", str(tmp_path))
    with pytest.raises(DataError, match="a link that leads nowhere"):
        open_source(SourceConfig("folder", 0.25, ())).layout()
    source = open_source(SourceConfig("folder", 0.25, (), ignore=("2*.jpg",)))
    assert source.layout().startswith("2 images of 2 classes")
    assert list(source.left_out().lines()) == ["not taken, as source.ignore says: 1 2*.jpg"]


def test_a_file_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "photos.zip").touch()
    with pytest.raises(DataError, match=r"photos\.zip: is a file; set ALEXNET_SOURCE to a folder or to s3://BUCKET/PREFIX"):
        LocalFolder(tmp_path / "photos.zip").list()
