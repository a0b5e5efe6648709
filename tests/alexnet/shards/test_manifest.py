"""A manifest reads back as it was written, and nothing else is taken for one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet.errors import DataError
from alexnet.shards.manifest import Manifest, Shard, Synset
from tests.support import sample_shards

MANIFEST = sample_shards.make([2, 3]).manifest()


LABELS = st.dictionaries(st.integers(0, 999), st.integers(0, 1300), max_size=4)


@given(st.lists(LABELS, max_size=3), st.text(max_size=8), st.text(max_size=8))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path, labels: list[dict[int, int]], wnid: str, name: str) -> None:
    shards = tuple(Shard(f"{name}{i}", 1 << 40, "ab" * 32, sum(each.values()), each) for i, each in enumerate(labels))
    manifest = Manifest(name, f"shards/{name}/", 256, (Synset(0, wnid, name),), {"train": shards, "val": ()})
    path = tmp_path / "manifest.json"
    manifest.write(path)
    assert Manifest.read(path) == manifest
    written = path.read_bytes()
    Manifest.read(path).write(path)
    assert path.read_bytes() == written


def test_the_order_of_labels_changes_no_byte(tmp_path: Path) -> None:
    shard = MANIFEST.splits["train"][0]
    for name, labels in (("a.json", {0: 1, 1: 1}), ("b.json", {1: 1, 0: 1})):
        same = Shard(shard.name, shard.bytes, shard.sha256, shard.samples, labels)
        Manifest("s", "p/", 32, (), {"train": (same,)}).write(tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def without(*keys: str | int) -> Callable[[Any], None]:
    """Removes the value at these keys of a tree."""

    def change(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        del tree[keys[-1]]

    return change


@pytest.mark.parametrize(
    "change",
    [
        without("prefix"),
        without("synsets", 0, "wnid"),
        without("splits", "train", 0, "sha256"),
        lambda tree: tree["splits"]["train"][0].update(other=1),
        lambda tree: tree["splits"]["train"][0]["labels"].update(cat=1),
        lambda tree: tree.update(splits=[]),
    ],
)
def test_a_file_that_is_no_manifest_is_named(change: Callable[[Any], None], tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    MANIFEST.write(path)
    tree = json.loads(path.read_text())
    change(tree)
    path.write_text(json.dumps(tree))
    with pytest.raises(DataError, match=r"manifest\.json.*; run the shard stage again"):
        Manifest.read(path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "5"])
def test_other_text_is_no_manifest(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: (must be a mapping|damaged: ).*; run the shard stage again"):
        Manifest.read(tmp_path / "manifest.json")
