import contextlib
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError
from alexnet.images.inspect import ValidateConfig
from pipelines.config import params
from pipelines.sources.folder import FolderSource
from pipelines.sources.places import LocalFolder
from pipelines.validation import index
from tests.support.stage_folder import make_image_folder

CONFIG = params.load().validate
KEEPING = replace(CONFIG, policy=CONFIG.policy | {"leaked": "ignore", "duplicate": "ignore"})


def row(key: str, label: int, sha256: str, split: str | None = None, faults: str | None = None) -> dict[str, object]:
    words: dict[str, object] = {
        "key": key,
        "split": split,
        "wnid": f"w{label}",
        "label": label,
        "path": key,
        "sha256": sha256,
        "mode": "RGB",
    }
    return words | {"offset": 0, "bytes": 1, "width": 9, "height": 9, "format": "JPEG", "faults": faults}


def complete(
    rows: list[dict[str, object]], config: ValidateConfig = CONFIG, val_fraction: float = 0.25
) -> list[dict[str, object]]:
    batch = pa.RecordBatch.from_pylist(rows, index.SCANNED)
    complete_rows: list[dict[str, object]] = index.complete([batch], config, val_fraction).to_pylist()
    return complete_rows


def test_an_orientation_is_applied_only_where_that_is_asked_for() -> None:
    rows = [row("a", 0, "1") | {"orientation": 6}, row("b", 1, "2") | {"orientation": 1}]
    assert [each["turn"] for each in complete(rows)] == [None, None]
    assert [each["turn"] for each in complete(rows, replace(CONFIG, orientation="apply"))] == [6, 1]


def verdicts(rows: list[dict[str, object]], config: ValidateConfig = CONFIG) -> dict[str, tuple[object, object]]:
    return {str(each["key"]): (each["fault"], each["action"]) for each in complete(rows, config)}


def test_the_index_is_ordered_by_split_and_key() -> None:
    found = complete([row("b", 0, "2", "val"), row("c", 0, "3", "train"), row("a", 1, "1", "train")])
    assert [(each["split"], each["key"]) for each in found] == [("train", "a"), ("train", "c"), ("val", "b")]


def test_the_same_bytes_again_in_a_split_are_a_duplicate_of_the_first_by_key() -> None:
    rows = [row("b", 0, "1", "train"), row("a", 0, "1", "train"), row("c", 0, "1", "train"), row("d", 0, "2", "val")]
    assert verdicts(rows) == {"a": (None, "use"), "b": ("duplicate", "drop"), "c": ("duplicate", "drop"), "d": (None, "use")}


def test_the_same_bytes_in_both_splits_are_leaked_and_both_are_named() -> None:
    rows = [row("a", 0, "1", "train"), row("b", 0, "1", "val"), row("c", 0, "2", "val")]
    assert verdicts(rows) == {"a": ("leaked", "stop"), "b": ("leaked", "stop"), "c": (None, "use")}


def test_what_leaked_is_dropped_from_the_training_set_only() -> None:
    dropping = replace(CONFIG, policy=CONFIG.policy | {"leaked": "drop"})
    rows = [row("a", 0, "1", "train"), row("b", 0, "1", "val")]
    assert verdicts(rows, dropping) == {"a": ("leaked", "drop"), "b": (None, "use")}


@pytest.mark.parametrize(("first", "second"), [("train", "val"), ("train", "test"), ("val", "test"), (None, "test")])
def test_a_leak_between_any_two_splits_is_found_and_dropped_from_the_earlier(first: str | None, second: str) -> None:
    """None: an image of training that is still to be split."""
    rows = [row("a", 0, "1", first), row("b", 0, "1", second), row("c", 0, "2", first), row("d", 0, "3", second)]
    assert verdicts(rows) == {"a": ("leaked", "stop"), "b": ("leaked", "stop"), "c": (None, "use"), "d": (None, "use")}
    dropping = replace(CONFIG, policy=CONFIG.policy | {"leaked": "drop"})
    assert verdicts(rows, dropping) == verdicts(rows[2:]) | {"a": ("leaked", "drop"), "b": (None, "use")}


def test_without_a_validation_split_it_is_cut_from_training_as_if_there_were_no_test_images() -> None:
    rows = [row(f"k{number:02}", number % 2, f"{number:02}") for number in range(20)]
    test = [row(f"t{number}", 0, f"0{number}x", "test") for number in range(4)]
    found = complete(rows + test)
    assert [each for each in found if each["split"] != "test"] == complete(rows)
    assert [each["key"] for each in found if each["split"] == "test"] == ["t0", "t1", "t2", "t3"]


def test_the_same_bytes_under_two_labels_conflict() -> None:
    rows = [row("a", 0, "1"), row("b", 1, "1"), row("c", 0, "2"), row("d", 1, "3")]
    assert [verdict for verdict in verdicts(rows).values() if verdict[0]] == [("conflicting", "stop")] * 2


def test_files_that_cannot_be_read_are_no_copies_of_one_another() -> None:
    rows = [row("a", 0, "1", faults="empty"), row("b", 1, "1", faults="empty"), row("c", 0, "2"), row("d", 1, "3")]
    assert {verdict[0] for verdict in verdicts(rows).values()} == {"empty", None}


def test_every_fault_of_an_image_is_recorded_and_the_policy_picks_the_one_that_decides() -> None:
    rows = [row("a", 0, "1", "train", "wrong_format,alpha,grey"), row("b", 0, "1", "train", "exif_rotated"), row("c", 1, "2")]
    found = {each["key"]: (each["faults"], each["fault"], each["action"]) for each in complete(rows)}
    assert found == {
        "a": ("wrong_format,alpha,grey", "wrong_format", "repair"),
        "b": ("duplicate,exif_rotated", "duplicate", "drop"),
        "c": (None, None, "use"),
    }
    stopping = replace(CONFIG, policy=CONFIG.policy | {"grey": "stop"})
    assert verdicts(rows, stopping)["a"] == ("grey", "stop")


def test_copies_under_two_labels_are_in_one_split() -> None:
    config = replace(CONFIG, policy=CONFIG.policy | {"conflicting": "repair", "duplicate": "ignore"})
    for digest in range(40):
        rows = [row(f"k{label}-{n}", label, f"{n:02}") for label in range(2) for n in (range(40) if label else [digest])]
        splits = {each["split"] for each in complete(rows, config) if each["sha256"] == f"{digest:02}"}
        assert len(splits) == 1


IMAGES = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), min_size=1, max_size=40)


@settings(deadline=None, max_examples=40)
@given(IMAGES, st.floats(0.05, 0.95))
def test_a_split_by_digest_is_stratified_and_keeps_copies_together(images: list[tuple[int, int]], fraction: float) -> None:
    rows = [row(f"k{at}", label, f"{label}-{digest:02}") for at, (label, digest) in enumerate(images)]
    found = complete(rows, KEEPING, fraction)
    assert len(found) == len(rows)
    places: dict[object, set[object]] = {}
    for each in found:
        places.setdefault(each["sha256"], set()).add(each["split"])
    assert all(len(splits) == 1 for splits in places.values())
    for label in {label for label, _ in images}:
        own = [splits for digest, splits in places.items() if str(digest).startswith(f"{label}-")]
        val = sum(splits == {"val"} for splits in own)
        assert val == min(max(round(len(own) * fraction), 1), max(len(own) - 1, 1))


def test_one_more_image_moves_few_others() -> None:
    import hashlib

    digests = [hashlib.sha256(bytes([i])).hexdigest() for i in range(101)]
    rows = [row(f"k{i:03}", 0, digest) for i, digest in enumerate(digests)]
    before, after = complete(rows[:100], CONFIG), complete(rows, CONFIG)
    splits = {each["key"]: each["split"] for each in after}
    assert sum(splits[each["key"]] != each["split"] for each in before) <= 1


def test_scanning_reads_every_image_and_says_what_it_is(tmp_path: Path) -> None:
    source = FolderSource(LocalFolder(make_image_folder(tmp_path, images=3)), "here")
    (tmp_path / "class0" / "bad.jpg").write_bytes(b"text")
    rows = index.complete(index.scan(source, CONFIG), CONFIG, 0.25).to_pylist()
    assert len(rows) == 7
    bad = next(each for each in rows if each["key"] == "class0_bad")
    assert (bad["fault"], bad["action"], bad["width"], bad["label"]) == ("not_an_image", "stop", 0, 0)
    good = next(each for each in rows if each["key"] == "class1_2")
    assert (good["width"], good["height"], good["mode"], good["format"], good["label"], good["fault"]) == (
        64,
        48,
        "RGB",
        "JPEG",
        1,
        None,
    )


def test_bytes_that_the_network_garbled_are_read_again(tmp_path: Path) -> None:
    class Garbling(LocalFolder):
        def read(self, path: str, offset: int, size: int) -> bytes:
            data = super().read(path, offset, size)
            spoiled = path in spoil and not spoil.pop(path)
            return data[:-100] + bytes(100) if spoiled else data

    folder = make_image_folder(tmp_path, images=3)
    whole = index.complete(index.scan(FolderSource(LocalFolder(folder), "here"), CONFIG), CONFIG, 0.25)
    spoil = {"class0/1.jpg": False, "class1/2.jpg": False}
    assert index.complete(index.scan(FolderSource(Garbling(folder), "here"), CONFIG), CONFIG, 0.25).equals(whole)
    assert not spoil


def test_a_file_larger_than_any_image_is_named(tmp_path: Path) -> None:
    source = FolderSource(LocalFolder(make_image_folder(tmp_path)), "here")
    with (tmp_path / "class1" / "3.jpg").open("wb") as file:
        file.truncate(129 << 20)
    with pytest.raises(DataError, match=r"here/class1/3\.jpg: has 135,266,304 bytes, more than any image; remove it"):
        list(index.scan(source, CONFIG))


def test_a_file_that_shrank_since_it_was_listed_is_named(tmp_path: Path) -> None:
    source = FolderSource(LocalFolder(make_image_folder(tmp_path)), "here")
    list(source.images())
    (tmp_path / "class1" / "3.jpg").write_bytes(b"12")
    with pytest.raises(DataError, match=r"class1/3\.jpg: has 2 bytes, \d+ were listed; the source changed, run again"):
        list(index.scan(source, CONFIG))


def test_equal_indexes_are_equal_bytes_and_read_back(tmp_path: Path) -> None:
    batch = pa.RecordBatch.from_pylist([row("a", 0, "1" * 64), row("b", 1, "2" * 64)], index.SCANNED)
    table = index.complete([batch], CONFIG, 0.25)
    digests = {index.write(table.replace_schema_metadata({"time": str(i)}), tmp_path / f"{i}.parquet") for i in range(2)}
    assert len(digests) == 1
    assert index.read(tmp_path / "0.parquet").equals(table)


def test_what_is_no_index_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"index\.parquet: no such file; run the validate stage"):
        index.read(tmp_path / "index.parquet")
    (tmp_path / "index.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match=r"index\.parquet: not an index: .*; run the validate stage again"):
        index.read(tmp_path / "index.parquet")
    pa.parquet.write_table(pa.table({"key": ["a"]}), tmp_path / "index.parquet")
    with pytest.raises(
        DataError, match=r"index\.parquet: not an index: it has no split, wnid, .*; run the validate stage again"
    ):
        index.read(tmp_path / "index.parquet")


def test_paths_and_offsets_are_no_part_of_the_content() -> None:
    rows = [row("a", 0, "1"), row("b", 1, "2")]
    moved = [each | {"path": "elsewhere", "offset": 7} for each in rows]
    first, second, third = (
        index.content_digest(index.complete([pa.RecordBatch.from_pylist(each, index.SCANNED)], CONFIG, 0.25))
        for each in (rows, moved, [rows[0], rows[1] | {"sha256": "3"}])
    )
    assert first == second != third


def an_index() -> pa.Table:
    rows = [row(f"k{number:02}", number % 3, f"{number:064x}") | {"split": "train"} for number in range(30)]
    return index.complete([pa.RecordBatch.from_pylist(rows, index.SCANNED)], CONFIG, 0.25)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("key", "../x"),
        ("key", None),
        ("key", "k01"),
        ("split", "eval"),
        ("split", None),
        ("label", 7),
        ("label", -1),
        ("label", -2),
        ("label", 1 << 30),
        ("path", "/etc/passwd"),
        ("path", ""),
        ("offset", -1),
        ("bytes", -5),
        ("bytes", 10**12),
        ("sha256", "x"),
        ("width", -1),
        ("format", "a\nb"),
        ("faults", "no_fault"),
        ("action", "keep"),
        ("frames", 0),
        ("turn", 9),
    ],
)
def test_a_value_that_no_index_has_is_named(column: str, value: object, tmp_path: Path) -> None:
    rows = an_index().to_pylist()
    rows[0] |= {column: value}
    index.write(pa.Table.from_pylist(rows, index.SCHEMA), tmp_path / "index.parquet")
    with pytest.raises(DataError, match=r"index\.parquet: not an index: .*; run the validate stage again"):
        index.read(tmp_path / "index.parquet")


def test_an_index_of_before_a_column_was_added_is_read(tmp_path: Path) -> None:
    whole = an_index()
    index.write(whole.drop_columns(["frames", "orientation", "profile", "turn"]), tmp_path / "index.parquet")
    assert index.read(tmp_path / "index.parquet")["turn"].null_count == whole.num_rows
    index.write(whole.drop_columns(["label"]), tmp_path / "index.parquet")
    with pytest.raises(DataError, match="it has no label; run the validate stage again"):
        index.read(tmp_path / "index.parquet")


def test_other_types_are_no_index(tmp_path: Path) -> None:
    table = an_index().set_column(3, "label", pa.array([b"0"] * 30, pa.binary()))
    index.write(table, tmp_path / "index.parquet")
    with pytest.raises(DataError, match="not an index"):
        index.read(tmp_path / "index.parquet")


def test_no_flipped_bit_is_believed(tmp_path: Path) -> None:
    path, whole = tmp_path / "index.parquet", an_index()
    index.write(whole, path)
    data = path.read_bytes()
    assert index.read(path).equals(whole)
    for at in range(0, len(data), 29):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        with contextlib.suppress(DataError):
            assert index.read(path).equals(whole), f"byte {at}"
