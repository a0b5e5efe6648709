import io
import tarfile
from pathlib import Path

import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.shards.tar import index_tar
from alexnet.shards.tarfiles import Sample, tar_of

KEYS = st.text("abcXYZ019_-", min_size=1, max_size=96)
SAMPLES = st.lists(
    st.builds(Sample, KEYS, st.integers(0, 999), st.binary(max_size=1500)), max_size=5, unique_by=lambda s: s.key
)


@settings(deadline=None, max_examples=50)
@given(SAMPLES)
def test_a_shard_reads_back(samples: list[Sample]) -> None:
    tar = tar_of(samples)
    index = index_tar(tar, "shard")
    assert index.keys == [sample.key for sample in samples]
    assert index.labels.tolist() == [sample.label for sample in samples]
    ends = zip(index.offsets, index.sizes, strict=True)
    assert [tar[start : start + size] for start, size in ends] == [sample.jpeg for sample in samples]


@settings(deadline=None, max_examples=25)
@given(SAMPLES)
def test_any_tool_reads_a_shard(samples: list[Sample]) -> None:
    with tarfile.open(fileobj=io.BytesIO(tar_of(samples))) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == [f"{s.key}.{end}" for s in samples for end in ("jpg", "cls")]
        assert {(m.mtime, m.mode, m.uid, m.gid, m.uname) for m in members} <= {(0, 0o444, 0, 0, "")}


@pytest.mark.filterwarnings("ignore")  # it leaves the file open
def test_webdataset_reads_a_shard(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar_of([Sample("n01_1", 7, b"x"), Sample("n01_2", 8, b"y")]))
    found = list(webdataset.WebDataset(str(tmp_path / "a.tar"), shardshuffle=False))
    assert [(each["__key__"], each["jpg"], each["cls"]) for each in found] == [("n01_1", b"x", b"7"), ("n01_2", b"y", b"8")]
