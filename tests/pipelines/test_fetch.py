import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from alexnet.errors import DataError, ParamsError
from pipelines import fetch
from pipelines.cli import pictures
from pipelines.runtime.environment import Store
from pipelines.sources.base import SourceConfig
from pipelines.sources.places import LocalFolder
from tests.support.stage_folder import StageFolder, make_image_folder, make_small_ilsvrc, make_stage_folder

SOURCE, LISTING, PURPOSE = (Path(f"artifacts/{name}.json") for name in ("source", "listing", "purpose"))
NO_STORE = Store("b", "r", None, None, None, None)


@pytest.fixture
def stage_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    (tmp_path / "work").mkdir()
    folder = make_stage_folder(tmp_path / "work", NO_STORE, make_image_folder(tmp_path / "images"), monkeypatch)
    folder.params(model={"classes": 2})
    return folder


def fetched() -> dict[str, object]:
    fetch.main(SOURCE, LISTING, PURPOSE)
    found: dict[str, object] = json.loads(SOURCE.read_text())
    found |= json.loads(LISTING.read_text())
    return found


def test_the_listing_changes_with_the_source_and_names_no_place(stage_folder: StageFolder, tmp_path: Path) -> None:
    first = fetched()
    assert (first["name"], first["files"]) == ("folder", 16)
    assert str(tmp_path) not in SOURCE.read_text() + LISTING.read_text()
    assert fetched() == first
    (tmp_path / "images/class0/new.jpg").write_bytes(pictures.jpeg(99))
    assert fetched() != first


def test_a_mistake_anywhere_in_params_stops_before_work(stage_folder: StageFolder) -> None:
    stage_folder.params(publish={"max_top1_error": "low"})
    with pytest.raises(ParamsError, match=r"publish\.max_top1_error: must be a number, got 'low'"):
        fetch.main(SOURCE, LISTING, PURPOSE)
    assert not SOURCE.exists()


def test_an_empty_class_is_named(stage_folder: StageFolder, tmp_path: Path) -> None:
    (tmp_path / "images" / "empty").mkdir()
    with pytest.raises(DataError, match="no images in class empty"):
        fetch.main(SOURCE, LISTING, PURPOSE)


@pytest.mark.parametrize(
    ("env", "publish"),
    [
        ({}, True),
        ({"DVC_EXP_BASELINE_REV": "0123", "DVC_ROOT": ""}, False),
        ({"DVC_EXP_BASELINE_REV": "0123", "ALEXNET_PUBLISH": "yes"}, True),
        ({"ALEXNET_PUBLISH": "no"}, False),
    ],
)
def test_an_experiment_publishes_only_when_asked(
    stage_folder: StageFolder, env: dict[str, str], publish: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    fetched()
    assert json.loads(PURPOSE.read_text()) == {"publish": publish, "experiment": "DVC_EXP_BASELINE_REV" in env}


def test_preparing_data_loads_no_torch() -> None:
    code = "import sys, pipelines.validate, pipelines.shard; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"


def test_fetching_loads_nothing_slow() -> None:
    code = "import sys, pipelines.fetch; print([m for m in ('torch', 'pandas', 'pyarrow', 'boto3') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


def test_data_that_may_not_be_used_freely_say_so(
    stage_folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_small_ilsvrc(tmp_path / "archives")
    monkeypatch.setenv("ALEXNET_SOURCE", str(tmp_path / "archives"))
    stage_folder.params(source={"name": "imagenet"}, model={"classes": 3})
    fetch.main(SOURCE, LISTING, PURPOSE)
    assert "fetch: imagenet, 3 files, " in (out := capsys.readouterr().out)
    assert "its license: non-commercial research and education only" in out


def test_what_was_understood_and_what_is_left_out_is_said_first(
    stage_folder: StageFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        (tmp_path / f"images/class0/{number}.heic").touch()
    found = fetched()
    assert found["left_out"] == {".heic": 3}
    assert "fetch: 16 images of 2 classes; CLASS/IMAGE; " in (out := capsys.readouterr().out)
    assert "fetch: not taken, files of other kinds: 3 .heic; " in out
    assert "fetch: classes: class0, class1\n" in out


def test_classes_that_differ_in_spelling_alone_are_said(
    stage_folder: StageFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = tmp_path / "images"
    (images / "class0").rename(images / "cafe\u0301")
    (images / "class1").rename(images / "caf\u00e9")
    fetched()
    assert (
        r"fetch: 'cafe\u0301' and 'caf\xe9' differ in spelling alone, and are classes of their own" in capsys.readouterr().out
    )


@pytest.mark.parametrize("key", ["model.classes", "validate.counts.classes"])
def test_a_wrong_number_of_classes_is_told_before_any_work(stage_folder: StageFolder, key: str) -> None:
    of_model = key == "model.classes"
    stage_folder.params(model={"classes": 2 + of_model}, validate={"counts": {"classes": None if of_model else 3}})
    with pytest.raises(ParamsError, match=f"{key}: is 3, and the source has 2 classes; set it to 2"):
        fetch.main(SOURCE, LISTING, PURPOSE)
    assert not SOURCE.exists()


def test_what_is_set_and_not_used_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALEXNET_SOURCE", "photos")
    notes = list(fetch.unused(SourceConfig("digits", 0.25, (), {"train": "a"})))
    assert notes[0] == "ALEXNET_SOURCE is set and not used: the source is digits; `alexnet use folder` reads what it names"
    assert notes[1] == "source.splits and source.ignore are not used: the files of digits are known"
    assert not list(fetch.unused(SourceConfig("folder", 0.25, (), {"train": "a"})))


def test_the_same_files_written_again_are_listed_anew_and_summed_up_alike(stage_folder: StageFolder, tmp_path: Path) -> None:
    fetched()
    before = SOURCE.read_bytes(), LISTING.read_bytes()
    shutil.copytree(tmp_path / "images", tmp_path / "copy")
    shutil.rmtree(tmp_path / "images")
    shutil.move(tmp_path / "copy", tmp_path / "images")
    fetched()
    assert SOURCE.read_bytes() == before[0]
    assert LISTING.read_bytes() != before[1]


def test_rehash_sees_what_times_and_inodes_do_not(
    stage_folder: StageFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalFolder, "list", lambda self, of=LocalFolder.list: [replace(file, stamp="") for file in of(self)])
    first = fetched()
    path = tmp_path / "images/class0/0.jpg"
    path.write_bytes(path.read_bytes()[::-1])
    assert fetched() == first
    fetch.main(SOURCE, LISTING, PURPOSE, rehash=True)
    rehashed = json.loads(LISTING.read_text())
    assert rehashed["content"] != first["content"]
    assert rehashed.items() <= fetched().items()  # so that the next run sees it
    path.write_bytes(path.read_bytes()[::-1])
    fetch.main(SOURCE, LISTING, PURPOSE, rehash=True)
    assert json.loads(LISTING.read_text()) != rehashed
