"""alexnet/shards/tar.py."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset as wds
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError
from alexnet.shards.tar import BLOCK, Sample, TarIndex, index_tar, parse_header, tar_of
from tests.support import sample_shards
from tests.support.sample_shards import jpeg, tar

GOOD = sample_shards.make([5]).tars["train-000000.tar"]


def read(body: bytes) -> list[tuple[str, int, bytes]]:
    index = index_tar(memoryview(body), "s.tar")
    rows = zip(index.keys, index.labels, index.offsets, index.sizes, strict=True)
    return [(key, int(label), body[at : at + size]) for key, label, at, size in rows]


def by_tarfile(body: bytes) -> list[tuple[str, int, bytes]]:
    """The simpler twin."""
    with tarfile.open(fileobj=io.BytesIO(body)) as reader:
        files = {member.name: reader.extractfile(member).read() for member in reader}  # type: ignore[union-attr]
    keys = dict.fromkeys(name.split(".")[0] for name in files)
    return [(key, int(files[f"{key}.cls"]), files[f"{key}.jpg"]) for key in keys]


def test_the_index_reads_what_tarfile_reads() -> None:
    assert read(GOOD) == by_tarfile(GOOD)
    assert [label for _, label, _ in read(GOOD)] == [0, 1, 2, 0, 1]


def parsed(block: bytes) -> tuple[str, int, bytes, int] | None:
    """Name, size, type and mode by our reader; None where it refuses."""
    try:
        info = parse_header(block, 0, 1 << 40, "here")
    except DataError:
        return None
    assert info is not None
    return info.name, info.size, info.type, info.mode


def parsed_by_tarfile(block: bytes) -> tuple[str, int, bytes, int] | None:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "replace")
    except tarfile.HeaderError:
        return None
    size = 0 if info.isdir() else info.size
    return (info.name, size, info.type, info.mode) if 0 <= size <= (1 << 40) - BLOCK else None


@given(
    name=st.one_of(
        st.text(st.characters(codec="utf-8"), min_size=1, max_size=20), st.from_regex(r"[ -~]{1,99}", fullmatch=True)
    ).filter(lambda name: "\0" not in name),
    size=st.integers(0, 1 << 32),
    changes=st.lists(st.tuples(st.integers(0, BLOCK - 1), st.sampled_from(b"\0 /019") | st.integers(0, 255)), max_size=3),
    is_summed=st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_a_header_is_read_as_tarfile_reads_it(name: str, size: int, changes: list[tuple[int, int]], is_summed: bool) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o444
    block = bytearray(info.tobuf(tarfile.USTAR_FORMAT))
    for at, value in changes:
        block[at] = value
    if is_summed:
        block[148:156] = b" " * 8
        block[148:156] = b"%06o\0 " % sum(block)
    assert parsed(bytes(block)) == parsed_by_tarfile(bytes(block))


def test_the_headers_of_a_shard_are_read_without_tarfile(monkeypatch: pytest.MonkeyPatch) -> None:
    body = tar_of(Sample(f"k{number}", number, jpeg(number)) for number in range(3))
    monkeypatch.delattr(tarfile.TarInfo, "frombuf")
    assert read(body) == [(f"k{number}", number, jpeg(number)) for number in range(3)]


@given(
    st.lists(
        st.tuples(st.from_regex(r"[\w-]{1,90}", fullmatch=True), st.integers(0, 999), st.binary(max_size=2000)), max_size=8
    )
)
@settings(max_examples=60, deadline=None)
def test_any_sample_comes_back_as_it_was_written(samples: list[tuple[str, int, bytes]]) -> None:
    unique = {key: (key, label, body) for key, label, body in samples if len(key.encode()) <= 90}
    members = [
        part for key, label, body in unique.values() for part in ((f"{key}.jpg", body), (f"{key}.cls", str(label).encode()))
    ]
    assert read(tar(members)) == list(unique.values())


@pytest.mark.parametrize("mtime", [None, 0.0, 1234.5])
def test_webdatasets_own_writer_is_read(tmp_path: Path, mtime: float | None) -> None:
    path = tmp_path / "theirs.tar"
    with wds.TarWriter(str(path), mtime=mtime) as writer:
        for i in range(4):
            writer.write({"__key__": f"n01440764_{i}", "jpg": jpeg(i), "cls": i})
    assert read(path.read_bytes()) == [(f"n01440764_{i}", i, jpeg(i)) for i in range(4)]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves its file to the collector
def test_webdataset_reads_ours(tmp_path: Path) -> None:
    (tmp_path / "ours.tar").write_bytes(GOOD)
    theirs = [(s["__key__"], int(s["cls"]), s["jpg"]) for s in wds.WebDataset(str(tmp_path / "ours.tar"), shardshuffle=False)]
    assert theirs == read(GOOD)


def test_an_empty_tar_has_no_samples() -> None:
    assert len(index_tar(tar([]), "s.tar")) == 0


def test_a_label_may_stand_before_its_image() -> None:
    assert read(tar([("a.cls", b"7"), ("a.jpg", b"x")])) == [("a", 7, b"x")]


def test_a_tar_cut_anywhere_is_refused() -> None:
    """Also at the boundary of a member, where other readers end without a word."""
    end = len(GOOD.rstrip(b"\0"))
    for size in [*range(0, end, 97), *range(0, end + 512, 512)]:
        with pytest.raises(DataError, match=r"s\.tar: "):
            index_tar(GOOD[:size], "s.tar")


@given(st.integers(0, len(GOOD) - 1), st.integers(0, 7))
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_is_refused_or_changes_no_structure(byte: int, bit: int) -> None:
    """The bits of an image are the digest's business; those of a header are ours."""
    damaged = bytearray(GOOD)
    damaged[byte] ^= 1 << bit
    whole = index_tar(GOOD, "s.tar")
    try:
        index = index_tar(bytes(damaged), "s.tar")
    except DataError:
        return
    assert index.keys == whole.keys
    assert np.array_equal(index.offsets, whole.offsets)
    assert np.array_equal(index.sizes, whole.sizes)


@given(st.binary(max_size=4096))
@settings(max_examples=200, deadline=None)
def test_noise_is_refused(noise: bytes) -> None:
    padded = noise + bytes(-len(noise) % 512)
    try:
        assert isinstance(index_tar(padded, "s.tar"), TarIndex)
        assert not padded.strip(b"\0")
    except DataError:
        pass


@pytest.mark.parametrize(
    "name", ["a.pyd", "a.pkl", "a.pth", "a.json", "a.b.jpg", "../a.jpg", "/a.jpg", "x/a.jpg", ".jpg", "a\n.jpg", "a.JPG", "a"]
)
def test_a_member_that_no_shard_may_hold_is_refused_by_name(name: str) -> None:
    with pytest.raises(
        DataError, match=r"s\.tar: member .* at byte 0 is not a sample's; allowed: regular files KEY\.jpg and KEY\.cls"
    ):
        index_tar(tar([(name, b"0")]), "s.tar")


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_links_folders_and_devices_are_refused(kind: bytes) -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as writer:
        info = tarfile.TarInfo("a.jpg")
        info.type, info.linkname = kind, "/etc/passwd"
        writer.addfile(info)
    with pytest.raises(DataError, match="is not a sample's"):
        index_tar(file.getvalue(), "s.tar")


def test_an_extended_header_that_renames_is_refused() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as writer:
        info = tarfile.TarInfo("a.jpg")
        info.pax_headers = {"path": "../../b.jpg"}
        writer.addfile(info)
    with pytest.raises(DataError, match=r"the extended header at byte 0 holds more than times; write plain USTAR tars"):
        index_tar(file.getvalue(), "s.tar")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([("a.jpg", b"x")], "1 members; a sample has two, KEY.jpg and KEY.cls"),
        ([("a.jpg", b"x"), ("b.cls", b"0")], "a.jpg is followed by b.cls; a sample is KEY.jpg and KEY.cls side by side"),
        ([("a.jpg", b"x"), ("a.jpg", b"0")], "a.jpg is followed by a.jpg"),
        ([("a.jpg", b"x"), ("a.cls", b"cat")], "label b'cat' of a at byte 1536; must be a whole number in decimals"),
        ([("a.jpg", b"x"), ("a.cls", b"")], "label b'' of a"),
        ([("a.jpg", b"x"), ("a.cls", b"-1")], "label b'-1' of a"),
        ([("a.jpg", b"x"), ("a.cls", b"0")] * 2, "key a stands twice; run the shard stage again"),
    ],
)
def test_samples_without_both_members_are_refused(members: list[tuple[str, bytes]], message: str) -> None:
    with pytest.raises(DataError) as error:
        index_tar(tar(members), "s.tar")
    assert f"s.tar: {message}" in str(error.value)


def test_a_name_too_long_for_its_field_is_refused() -> None:
    with pytest.raises(DataError, match="is not a sample's"):
        index_tar(tar([("x" * 60 + "/" + "y" * 60 + ".jpg", b"x")]), "s.tar")


# Writing.

KEYS = st.text("abcXYZ019_-", min_size=1, max_size=96)
SAMPLES = st.lists(
    st.builds(Sample, KEYS, st.integers(0, 999), st.binary(max_size=1500)), max_size=5, unique_by=lambda s: s.key
)


@settings(deadline=None, max_examples=50)
@given(SAMPLES)
def test_a_written_shard_reads_back(samples: list[Sample]) -> None:
    written = tar_of(samples)
    index = index_tar(written, "shard")
    assert index.keys == [sample.key for sample in samples]
    assert index.labels.tolist() == [sample.label for sample in samples]
    ends = zip(index.offsets, index.sizes, strict=True)
    assert [written[start : start + size] for start, size in ends] == [sample.jpeg for sample in samples]


@settings(deadline=None, max_examples=25)
@given(SAMPLES)
def test_tarfile_reads_a_written_shard(samples: list[Sample]) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(samples))) as reader:
        members = reader.getmembers()
        assert [member.name for member in members] == [f"{s.key}.{end}" for s in samples for end in ("jpg", "cls")]
        assert {(m.mtime, m.mode, m.uid, m.gid, m.uname) for m in members} <= {(0, 0o444, 0, 0, "")}


@pytest.mark.filterwarnings("ignore")  # it leaves the file open
def test_webdataset_reads_a_written_shard(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([Sample("n01_1", 7, b"x"), Sample("n01_2", 8, b"y")]))
    found = list(wds.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    assert [(each["__key__"], each["jpg"], each["cls"]) for each in found] == [("n01_1", b"x", b"7"), ("n01_2", b"y", b"8")]
