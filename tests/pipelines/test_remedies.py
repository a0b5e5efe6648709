"""What an error of a stage says to do is done here, word by word, and cures the case. Those of sources stand beside theirs."""

import operator
import re
import shutil
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from alexnet.config import build
from alexnet.errors import DataError, ParamsError
from alexnet.images.statistics import PixelStatistics
from alexnet.shards.manifest import Manifest
from pipelines import fetch, shard, validate
from pipelines.cli.main import main
from pipelines.config import params
from pipelines.config.params import Params
from pipelines.runtime.environment import Store
from pipelines.validation import index
from pipelines.validation.report import ValidationReport
from tests.pipelines.sources.archives.test_samples import packed
from tests.support.stage_folder import (
    INDEX,
    MANIFEST,
    PARAMS,
    PIXELS,
    REPORT,
    StageFolder,
    make_image_folder,
    make_small_ilsvrc,
    make_stage_folder,
)

SOURCE, LISTING, PURPOSE = (Path(f"artifacts/{name}.json") for name in ("source", "listing", "purpose"))
FETCH = partial(fetch.main, SOURCE, LISTING, PURPOSE)
VALIDATE, SHARD = partial(validate.main, INDEX, REPORT), partial(shard.main, INDEX, MANIFEST, PIXELS)


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    """Two classes of four images."""
    (tmp_path / "work").mkdir()
    images = make_image_folder(tmp_path / "images", images=4)
    place = make_stage_folder(tmp_path / "work", fresh_store, images, monkeypatch)
    put("model.classes", 2)
    return place


def put(key: str, value: object) -> None:
    """Writes a value of params.yaml."""
    yaml, path = YAML(typ="safe", pure=True), Path("params.yaml")
    tree = yaml.load(path)
    operator.setitem(*leaf(tree, key), value)
    yaml.dump(tree, path)


def follow(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Does what a message says."""
    if command := re.search(r"`alexnet ([^`]+)`", said):
        assert main(command[1].split()) == 0
    elif variable := re.search(r"(?:set|write) (ALEXNET_\w+) to (\S+)", said):
        monkeypatch.setenv(variable[1], variable[2])
    elif "set source.splits to {train: PREFIX, val: PREFIX}" in said:
        train, val = re.findall(r"([\w-]+)\*", said.partition("there are ")[2])
        put("source.splits", {"train": train, "val": val, "test": None})
    elif setting := re.search(r"set (it|[a-z_]+(?:\.\w+)+):?(?: to)? ([\w.]+)", said):
        put(said.partition(": ")[0] if setting[1] == "it" else setting[1], YAML(typ="safe").load(setting[2]))
    else:
        raise AssertionError(f"says nothing that can be done: {said}")


def tar(root: Path, name: str, members: dict[str, bytes]) -> None:
    root.mkdir(exist_ok=True)
    (root / name).write_bytes(packed(members, {**members, "cls": b"1"} if "cls" in members else members))


def webdataset(root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    put("source.name", "webdataset")
    monkeypatch.setenv("ALEXNET_SOURCE", str(root / "tars"))
    return root / "tars"


def two_images(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar(webdataset(root, monkeypatch), "train-0.tar", {"jpg": b"a", "png": b"b", "cls": b"0"})


def two_labels(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder := webdataset(root, monkeypatch)).mkdir()
    bodies = ({"jpg": b"a", "json": b'{"label": %d, "wnid": "n0144076%d"}' % (label, label)} for label in (0, 1))
    (folder / "train-0.tar").write_bytes(packed(*bodies))


def unnamed_splits(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("train-0.tar", "extra-0.tar"):
        tar(webdataset(root, monkeypatch), name, {"jpg": name.encode(), "cls": b"0"})


def too_high(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small_ilsvrc(root / "above/here")
    monkeypatch.setenv("ALEXNET_SOURCE", str(root / "above"))
    put("source.name", "imagenet")
    put("model.classes", 3)


@pytest.mark.parametrize(
    "arrange",
    [
        lambda *_: put("model.classes", 3),
        lambda *_: put("validate.counts.classes", 3),
        two_images,
        two_labels,
        unnamed_splits,
        too_high,
    ],
    ids=["classes", "counts", "two images", "two labels", "splits", "too high"],
)
def test_fetch_goes_on_once_its_error_was_followed(
    place: StageFolder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arrange: Callable[[Path, pytest.MonkeyPatch], None],
) -> None:
    arrange(tmp_path, monkeypatch)
    with pytest.raises((DataError, ParamsError)) as refused:
        FETCH()
    follow(str(refused.value), monkeypatch)
    FETCH()


@pytest.mark.slow
def test_the_preset_that_reads_the_variable_is_used_as_the_note_says(
    place: StageFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(PARAMS.parent / "presets", "presets")
    put("source.name", "digits")
    note = "fetch: ALEXNET_SOURCE is set and not used"
    with pytest.raises(ParamsError, match="model.classes: is 2, and the source has 10"):
        FETCH()
    said = capsys.readouterr().out
    assert note in said
    follow(said, monkeypatch)
    put("model.classes", 2)
    FETCH()
    assert note not in capsys.readouterr().out


READERS: dict[Path, Callable[[Path], object]] = {
    INDEX: index.read,
    REPORT: ValidationReport.read,
    MANIFEST: Manifest.read,
    PIXELS: PixelStatistics.read,
}
STAGES = {"validate": VALIDATE, "shard": SHARD}


@pytest.mark.slow
def test_the_stage_that_an_error_names_makes_the_file_again(place: StageFolder) -> None:
    FETCH()
    for stage in STAGES.values():
        stage()
    for path, read in READERS.items():
        whole = path.read_bytes()
        for damage in (path.unlink, partial(path.write_bytes, whole[: len(whole) // 2])):
            damage()
            with pytest.raises(DataError) as refused:
                read(path)
            named = re.search(r"run the (\w+) stage", str(refused.value))
            assert named, refused.value
            STAGES[named[1]]()
            read(path)
            assert path.read_bytes() == whole


def leaf(tree: dict[str, Any], key: str) -> tuple[dict[str, Any], str]:
    """The mapping that a key lies in, and its name there."""
    section, _, name = key.rpartition(".")
    for each in section.split(".") if section else ():
        tree = tree[each]
    assert name in tree, f"{key} is no parameter"
    return tree, name


def keys(tree: dict[str, Any], path: str = "") -> Iterator[str]:
    """Of every value."""
    for name, value in tree.items():
        if isinstance(value, dict) and value:
            yield from keys(value, f"{path}{name}.")
        else:
            yield f"{path}{name}"


def refusal(tree: dict[str, Any]) -> str:
    """Why these are no parameters; empty: they are."""
    try:
        build(Params, tree, "params.yaml")
    except ParamsError as error:
        return str(error)
    return ""


@pytest.mark.slow
def test_every_value_that_an_error_allows_is_taken() -> None:
    """Where another parameter forbids it, the next error says so, and what it allows is taken."""
    shipped = params.load_tree(PARAMS)
    tried = 0
    for key in keys(shipped):
        first = deepcopy(shipped)
        operator.setitem(*leaf(first, key), "nonsense")
        allowed = re.search(r"must be one of (.*), got", refusal(first))
        for value in allowed[1].split(", ") if allowed else ():
            tree = deepcopy(shipped)
            operator.setitem(*leaf(tree, key), value)
            for _ in range(2):
                said = refusal(tree)
                if other := re.search(r"^(\S+): .*(?:must be|it has) ([\w.-]+)", said):
                    operator.setitem(*leaf(tree, other[1]), [other[2]] if "it has" in said else other[2])
            assert refusal(tree) == "", f"{key}: {value}"
            tried += 1
    assert tried > 100
