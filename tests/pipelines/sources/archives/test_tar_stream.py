from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError
from alexnet.shards.tar import iter_headers
from pipelines.cli.make_ilsvrc import tar_of
from pipelines.sources.archives.tar_stream import ReadAhead, split_points


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 3000), min_size=1, max_size=30), st.integers(512, 9000), st.integers(0, 99))
def test_split_points_are_beginnings_of_members_and_lose_none(sizes: list[int], step: int, draw: int) -> None:
    images = [(f"n1_{i}.JPEG", bytes([draw + i]) * size) for i, size in enumerate(sizes)]
    tar = tar_of(images)
    starts = split_points(lambda at, size: tar[at : at + size], 0, len(tar), step, lambda name: name.endswith(".JPEG"))
    found = []
    for start, end in pairwise([*starts, len(tar)]):
        read = ReadAhead(lambda at, size: tar[at : at + size], end)
        members = iter_headers(read, start, end, "here", end == len(tar))
        found += [(member.name, read(member.offset_data, member.size)) for member in members]
    assert found == images


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_no_damage_to_a_tar_raises_anything_but_a_named_error(data: st.DataObject) -> None:
    whole = bytearray(tar_of([("ILSVRC2012_val_00000001.JPEG", b"abc"), ("ILSVRC2012_val_00000002.JPEG", b"de")]))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, 2048))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        found = list(iter_headers(lambda at, size: cut[at : at + size], 0, len(cut), "here"))
    except DataError as error:
        assert str(error).startswith("here: ")  # noqa: PT017 - it need not be raised
        return
    assert len(found) <= 2
