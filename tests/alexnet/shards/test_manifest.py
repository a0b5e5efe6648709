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


CLASSES = 20
LABELS = st.dictionaries(st.integers(0, CLASSES - 1), st.integers(1, 1300), min_size=1, max_size=4)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


@given(st.lists(LABELS, min_size=1, max_size=3), TEXT, TEXT)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path, labels: list[dict[int, int]], wnid: str, name: str) -> None:
    shards = tuple(Shard(f"t{i}.tar", 1 << 40, f"{i:064x}", sum(each.values()), each) for i, each in enumerate(labels))
    synsets = tuple(Synset(label, f"{wnid}{label}", name) for label in range(CLASSES))
    manifest = Manifest(name, "shards/a-b/", 256, synsets, {"train": shards, "val": ()})
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


def put(*keys: str | int, value: Any) -> Callable[[Any], None]:
    """Sets the value at these keys of a tree."""

    def change(tree: Any) -> None:
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = value

    return change


TRAIN = ("splits", "train", 0)


@pytest.mark.parametrize(
    "change",
    [
        *(put(*TRAIN, "sha256", value=text) for text in ("../../../x", "ab" * 31, "AB" * 32, "/etc/passwd")),
        *(put(*TRAIN, "name", value=text) for text in ("../x.tar", "/x.tar", "a/b.tar", "", ".x", "x\n")),
        *(put(*TRAIN, "samples", value=count) for count in (-5, 0, 10**12, 10**30, 2.0, "2", True)),
        *(put(*TRAIN, "bytes", value=count) for count in ("10240", -1, 0, 1 << 60, None)),
        *(put("side_px", value=side) for side in (0, -1, 10**6, "32")),
        *(put("prefix", value=text) for text in ("", "/", "../", "/etc/", "shards/../x/", "shards", "a//b/")),
        put(*TRAIN, "labels", value={"99": 2}),
        put(*TRAIN, "labels", value={"-1": 2}),
        put(*TRAIN, "labels", value={"0": 3, "1": -1}),
        put(*TRAIN, "labels", value={"1": 1, "01": 1}),
        put("splits", "train", value=[]),
        put("synsets", 1, "label", value=0),
        put("synsets", 1, "wnid", value="n00000000"),
        put("synsets", value=[]),
        lambda tree: tree["splits"]["train"].append(tree["splits"]["train"][0]),
    ],
)
def test_what_no_manifest_can_say_is_refused(change: Callable[[Any], None], tmp_path: Path) -> None:
    test_a_file_that_is_no_manifest_is_named(change, tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "null", "{", "5"])
def test_other_text_is_no_manifest(text: str, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DataError, match=r"manifest\.json: (must be a mapping|damaged: ).*; run the shard stage again"):
        Manifest.read(tmp_path / "manifest.json")
