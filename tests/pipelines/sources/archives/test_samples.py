import io
import json
import tarfile
from typing import Any

import pytest
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st
from webdataset.tariterators import group_by_keys, tar_file_expander

from alexnet.errors import DataError
from alexnet.shards.tar import Sample, tar_of
from pipelines.sources.archives.samples import TarSamples, read_samples
from pipelines.sources.base import MembersConfig

USUAL = MembersConfig(None, None)


def packed(*samples: dict[str, Any]) -> bytes:
    """By stock webdataset."""
    out = io.BytesIO()
    with wds.TarWriter(out, encoder=False) as sink:
        for number, sample in enumerate(samples):
            sink.write({"__key__": f"{number:04}"} | sample)
    return out.getvalue()


def plain(*members: tuple[str, bytes], form: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as tar:
        for name, body in members:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(body), 1.5  # PAX keeps the half in an extended header
            tar.addfile(info, io.BytesIO(body))
    return out.getvalue()


def found(tar: bytes, config: MembersConfig = USUAL) -> TarSamples:
    return read_samples(lambda at, size: tar[at : at + size], len(tar), config, "here/a.tar")


def classes(tar: bytes, config: MembersConfig = USUAL) -> list[str]:
    return [wnid for _, wnid in found(tar, config).samples]


def test_what_stock_webdataset_writes_is_read_as_it_reads_it() -> None:
    samples = [
        {"__key__": "a/b/1", "jpg": b"one", "cls": b"3"},
        {"__key__": "a/b/2", "png": b"two!", "cls": b"hat\n", "txt": b"a caption"},
        {"__key__": f"{'long' * 24}", "webp": b"three", "json": b'{"label": 7}'},
    ]
    tar = packed(*samples)
    theirs = list(group_by_keys(tar_file_expander([{"url": "a.tar", "stream": io.BytesIO(tar)}])))
    ours = found(tar)
    assert [member.key for member, _ in ours.samples] == [each["__key__"] for each in theirs]
    for (member, _), each in zip(ours.samples, theirs, strict=True):
        assert tar[member.offset : member.offset + member.size] == each[member.suffix]
    assert [wnid for _, wnid in ours.samples] == ["3", "hat", "7"]
    assert ours.others == {".txt": 1}


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_every_form_of_tar_is_read_with_long_names(form: int) -> None:
    names = [f"{'folder/' * (9 if form == tarfile.USTAR_FORMAT else 40)}{number}" for number in range(2)]
    tar = plain(*((f"{name}.{end}", body) for name in names for end, body in (("JPEG", b"image"), ("cls", b"1"))), form=form)
    assert [member.key for member, _ in found(tar).samples] == names
    assert [member.suffix for member, _ in found(tar).samples] == ["jpeg", "jpeg"]


def test_our_own_shards_are_samples() -> None:
    tar = tar_of([Sample("a", 3, b"one"), Sample("b", 12, b"two")])
    assert classes(tar) == ["3", "12"]


@pytest.mark.parametrize(
    ("sample", "wnid"),
    [
        ({"cls": b" 12 "}, "12"),
        ({"cls": "Katze, große".encode()}, "Katze, große"),
        ({"class": b"hat"}, "hat"),
        ({"json": b'{"label": "hat", "width": 3}'}, "hat"),
        ({"json": b'{"class_id": 5, "label": null}'}, "5"),
        ({"json": b'"hat"'}, "hat"),
        ({"cls": b"3", "json": b'{"label": 4}'}, "3"),
        ({}, ""),
        ({"cls": b""}, ""),
        ({"cls": b"\xff\xfe"}, ""),
        ({"cls": b"a\x1b[31m"}, ""),
        ({"cls": b"../../etc"}, ""),
        ({"cls": b"9" * 2000}, ""),
        ({"json": b"{"}, ""),
        ({"json": b'{"label": 1, "label": 2}'}, ""),
        ({"json": b'{"label": [1]}'}, ""),
        ({"json": b'{"label": true}'}, ""),
        ({"json": b'{"label": 1.5}'}, ""),
        ({"json": b'{"caption": "hat"}'}, ""),
        ({"json": b"[" * 100_000}, ""),
        ({"json": b'"' + b" " * (1 << 20) + b'hat"'}, ""),
    ],
)
def test_a_class_is_a_number_or_a_line_of_text_and_otherwise_unknown(sample: dict[str, bytes], wnid: str) -> None:
    assert classes(packed({"jpg": b"image"} | sample)) == [wnid]


def test_the_configured_members_are_used() -> None:
    tar = packed({"left.jpg": b"l", "right.jpg": b"r", "json": json.dumps({"label": 1, "kind": "hat"}).encode(), "cls": b"2"})
    config = MembersConfig("right.jpg", "json.kind")
    assert classes(tar, config) == ["hat"]
    ((member, _),) = found(tar, config).samples
    assert tar[member.offset : member.offset + member.size] == b"r"
    assert classes(packed({"img": b"image", "txt": b"hat"}), MembersConfig("img", "txt")) == ["hat"]


@pytest.mark.parametrize(
    ("tar", "message"),
    [
        (packed({"jpg": b"a", "png": b"b"}), r"'0000.jpg' and '0000.png' are images of one sample; set source.members.image"),
        (
            packed({"jpg": b"a", "json": b'{"label": 1, "wnid": "n01440764"}'}),
            "'0000.json' has label 1 and wnid 'n01440764'; set source.members.label to json.label or json.wnid",
        ),
        (plain(("a.jpg", b"1"), ("a.JPG", b"2")), "'a.JPG' stands twice in its sample"),
        (packed({"jpg": b"a"})[:700], "here/a.tar: .* the archive is cut"),
        (packed({"jpg": b"a"})[:1024], "here/a.tar: no end mark at byte 1,024"),
        (b"", "here/a.tar: no end mark at byte 0"),
        (b"not a tar at all" * 64, "here/a.tar: no tar header at byte 0"),
        (b"\x1f\x8b" + bytes(2000), "here/a.tar: is gzipped; .*: gunzip it"),
        (
            plain(("a.jpg", b"1")) + plain(("b.jpg", b"2")),
            "more than zeros after the end mark at byte .*; are these",
        ),
    ],
    ids=range(9),
)
def test_what_can_be_read_in_two_ways_or_is_damaged_is_named(tar: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        found(tar)


def test_links_and_what_systems_leave() -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        folder, link = tarfile.TarInfo("photos"), tarfile.TarInfo("photos/1.jpg")
        folder.type, link.type, link.linkname = tarfile.DIRTYPE, tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(folder)
        tar.addfile(link)
    with pytest.raises(DataError, match="member 'photos/1.jpg' at byte 512 is neither a file nor a folder; pack"):
        found(out.getvalue())
    left = found(plain(("./1.jpg", b"1"), ("./._1.jpg", b"2"), ("./1.cls", b"3"), ("__meta__.json", b"{}"), ("README", b"")))
    assert (len(left.samples), left.litter, left.others) == (1, {"._1.jpg": 1}, {"without a suffix": 1})


@settings(deadline=None, max_examples=100)
@given(st.data())
def test_no_damage_raises_anything_but_a_named_error(data: st.DataObject) -> None:
    whole = bytearray(plain((f"{'long' * 40}.jpg", b"abc"), ("b.jpg", b"de"), ("b.json", b'{"label": 1}')))
    for _ in range(data.draw(st.integers(1, 6))):
        whole[data.draw(st.integers(0, 6000))] = data.draw(st.integers(0, 255))
    try:
        samples = found(bytes(whole[: data.draw(st.integers(0, len(whole)))])).samples
    except DataError as error:
        assert str(error).startswith("here/a.tar: ")  # noqa: PT017 - it need not be raised
        return
    assert len(samples) <= 3
