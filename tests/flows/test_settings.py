"""A run's settings: laid over params.yaml for the run, and taken off again, also after a kill."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from flows.settings import RunSettings, laid_over_params
from pipelines.config import params

ROOT = Path(__file__).parents[2]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with params.yaml and presets; the current one for the rest of the test."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    return tmp_path


def test_every_variant_is_laid_as_the_stages_know_it(checkout: Path) -> None:
    before = Path("params.yaml").read_bytes()
    for variant in yaml.safe_load(before)["variants"]:
        wanted = params.load(variant=variant)
        with laid_over_params(RunSettings(variant=variant)):
            assert params.load() == wanted
        assert Path("params.yaml").read_bytes() == before


def test_preset_source_and_overrides_are_laid_in_this_order(checkout: Path) -> None:
    settings = RunSettings(preset="folder", source="imagenet", overrides=["train.epochs=3", "model.classes=7"])
    with laid_over_params(settings):
        found = params.load()
    assert (found.source.name, found.train.epochs, found.model.classes) == ("imagenet", 3, 7)
    assert found.train.augment == params.load(preset="folder").train.augment
    assert params.load().source.name == "digits"


def test_a_run_that_was_killed_leaves_nothing_for_the_next(checkout: Path) -> None:
    before = Path("params.yaml").read_bytes()
    code = (
        "import os\nfrom flows.settings import *\n"
        "with laid_over_params(RunSettings(variant='tanh')):\n    os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT)}, check=False)
    assert Path("params.yaml").read_bytes() != before
    with laid_over_params(RunSettings()):
        assert Path("params.yaml").read_bytes() == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"preset": "huge"}, "presets: has no 'huge'; it has digits, folder"),
        ({"variant": "huge"}, "params.yaml: has no variant 'huge'; it has tanh, one-tower"),
        ({"overrides": ["train.epoch=3"]}, "overrides: Could not override 'train.epoch'"),
    ],
)
def test_what_params_yaml_does_not_have_is_refused(checkout: Path, settings: dict[str, object], message: str) -> None:
    before = Path("params.yaml").read_bytes()
    with pytest.raises(ValueError, match=message), laid_over_params(RunSettings.model_validate(settings)):
        pass
    assert Path("params.yaml").read_bytes() == before


def test_places_become_variables_and_what_is_not_given_does_not() -> None:
    assert RunSettings().variables() == {}
    given = RunSettings(source_place="s3://bucket/photos", devices="cpu", publish=False)
    assert given.variables() == {"ALEXNET_SOURCE": "s3://bucket/photos", "ALEXNET_DEVICES": "cpu", "ALEXNET_PUBLISH": "no"}


def test_a_misspelt_setting_is_refused() -> None:
    with pytest.raises(ValidationError, match="overides"):
        RunSettings.model_validate({"overides": []})
