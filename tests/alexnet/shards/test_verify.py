"""Which shards are those of the manifest, and which stored indices are believed."""

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet.errors import DataError
from alexnet.files.sealed import read_sealed, seal
from alexnet.shards.manifest import Shard
from alexnet.shards.tar import index_tar
from alexnet.shards.verify import FileIdentity, Mismatch, map_file, read_index, verify, write_index
from tests.support import sample_shards

MADE = sample_shards.make([5])
(SHARD,) = MADE.shards
BODY = MADE.tars[SHARD.name]


def check(body: bytes, shard: Shard) -> None:
    verify(memoryview(body), hashlib.sha256(body).hexdigest(), shard)


def test_a_shard_of_the_manifest_is_indexed() -> None:
    index = verify(memoryview(BODY), SHARD.sha256, SHARD)
    assert index.keys == [f"k{i:05}" for i in range(5)]
    assert index.labels.tolist() == [0, 1, 2, 0, 1]


def test_a_label_without_images_is_no_difference() -> None:
    check(BODY, replace(SHARD, labels=SHARD.labels | {9: 0}))


@pytest.mark.parametrize(
    ("body", "shard", "kind", "message"),
    [
        (BODY[:-1], SHARD, Mismatch, f"has {len(BODY) - 1:,} bytes, the manifest says {len(BODY):,}"),
        (bytes(len(BODY)), SHARD, Mismatch, "sha256 is .*, the manifest says"),
        (BODY, replace(SHARD, samples=6), DataError, "holds 5 samples, the manifest says 6; run the shard stage again"),
        (BODY, replace(SHARD, labels={0: 5}), DataError, "images per label are .*, the manifest says {0: 5}; run the shard"),
    ],
    ids=["bytes", "digest", "samples", "labels"],
)
def test_what_differs_from_the_manifest_is_named(body: bytes, shard: Shard, kind: type[DataError], message: str) -> None:
    with pytest.raises(kind, match=rf"^{SHARD.name}: {message}") as found:
        check(body, shard)
    assert isinstance(found.value, Mismatch) == (kind is Mismatch)  # only wrong bytes are worth another fetch


# The stored index.


@pytest.fixture
def stored(tmp_path: Path) -> tuple[Path, FileIdentity]:
    """The index of a verified file, and that file's identity."""
    (tmp_path / "shard.tar").write_bytes(BODY)
    mapped = map_file(tmp_path / "shard.tar")
    assert mapped is not None
    view, file = mapped
    assert view == BODY
    write_index(tmp_path / "shard.json", index_tar(view, "shard"), file)
    return tmp_path / "shard.json", file


def test_a_stored_index_reads_back(stored: tuple[Path, FileIdentity]) -> None:
    path, file = stored
    found, expected = read_index(path, SHARD, file), index_tar(BODY, "shard")
    assert found is not None
    assert found.keys == expected.keys
    for name in ("labels", "offsets", "sizes"):
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    assert [each.name for each in path.parent.iterdir() if each.name.endswith(".tmp")] == []


def test_a_file_that_was_written_again_has_another_identity(stored: tuple[Path, FileIdentity]) -> None:
    path, file = stored
    shard = path.with_name("shard.tar")
    os.utime(shard, ns=(1, 1))
    mapped = map_file(shard)
    assert mapped is not None
    assert mapped[1] != file
    assert read_index(path, SHARD, mapped[1]) is None


@pytest.mark.parametrize("field", range(4))
def test_an_index_of_another_file_or_boot_is_not_believed(stored: tuple[Path, FileIdentity], field: int) -> None:
    path, file = stored
    other: Any = [*file]
    other[field] = "another boot" if field == 3 else other[field] + 1
    assert read_index(path, SHARD, tuple(other)) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda tree: tree.pop("keys"),
        lambda tree: tree["keys"].pop(),
        lambda tree: tree["sizes"].append(1),
        lambda tree: tree["offsets"].__setitem__(0, -1),
        lambda tree: tree["offsets"].__setitem__(0, len(BODY)),
        lambda tree: tree.update(labels="cats"),
        lambda tree: tree.update(file=None),
        lambda tree: tree.update(verified=tree["verified"] - 8 * 86400),
        lambda tree: tree.update(verified=tree["verified"] + 86400),
        lambda tree: tree.pop("verified"),
    ],
)
def test_a_damaged_index_is_not_believed(stored: tuple[Path, FileIdentity], change: Callable[[Any], None]) -> None:
    path, file = stored
    whole = path.read_bytes()
    tree = json.loads(read_sealed(path) or b"")
    change(tree)
    path.write_bytes(seal(json.dumps(tree).encode()))
    assert read_index(path, SHARD, file) is None
    path.write_bytes(whole[:-2])
    assert read_index(path, SHARD, file) is None
    path.write_bytes(whole.replace(b'"labels": [0', b'"labels": [1'))  # one bit: an image of another class
    assert read_index(path, SHARD, file) is None
    path.write_bytes(whole)
    assert read_index(path, SHARD, file) is not None


def test_a_missing_and_an_empty_file_are_none(tmp_path: Path) -> None:
    assert map_file(tmp_path / "none.tar") is None
    (tmp_path / "empty.tar").touch()
    assert map_file(tmp_path / "empty.tar") is None
    assert read_index(tmp_path / "none.json", SHARD, (1, 1, 1, "boot")) is None
