import json
import subprocess
import sys
from pathlib import Path

import pytest

from alexnet.errors import DataError, ParamsError
from pipelines import fetch
from pipelines.cli import pictures
from pipelines.runtime.environment import Store
from tests.support.stage_folder import StageFolder, make_image_folder, make_small_ilsvrc, make_stage_folder

SOURCE, PURPOSE = Path("artifacts/source.json"), Path("artifacts/purpose.json")
NO_STORE = Store("b", "r", None, None, None, None)


@pytest.fixture
def stage_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    (tmp_path / "work").mkdir()
    return make_stage_folder(tmp_path / "work", NO_STORE, make_image_folder(tmp_path / "images"), monkeypatch)


def fetched() -> dict[str, object]:
    fetch.main(SOURCE, PURPOSE)
    found: dict[str, object] = json.loads(SOURCE.read_text())
    return found


def test_the_listing_changes_with_the_source_and_names_no_place(stage_folder: StageFolder, tmp_path: Path) -> None:
    first = fetched()
    assert (first["name"], first["files"]) == ("folder", 16)
    assert str(tmp_path) not in SOURCE.read_text()
    assert fetched() == first
    (tmp_path / "images/class0/new.jpg").write_bytes(pictures.jpeg(99))
    assert fetched() != first


def test_a_mistake_anywhere_in_params_stops_before_work(stage_folder: StageFolder) -> None:
    stage_folder.params(publish={"max_top1_error": "low"})
    with pytest.raises(ParamsError, match=r"publish\.max_top1_error: must be a number, got 'low'"):
        fetch.main(SOURCE, PURPOSE)
    assert not SOURCE.exists()


def test_an_empty_class_is_named(stage_folder: StageFolder, tmp_path: Path) -> None:
    (tmp_path / "images" / "empty").mkdir()
    with pytest.raises(DataError, match="no images in class empty"):
        fetch.main(SOURCE, PURPOSE)


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
    assert json.loads(PURPOSE.read_text()) == {"publish": publish}


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
    stage_folder.params(source={"name": "imagenet"})
    fetch.main(SOURCE, PURPOSE)
    assert "fetch: imagenet, 3 files, " in (out := capsys.readouterr().out)
    assert "its license: non-commercial research and education only" in out
