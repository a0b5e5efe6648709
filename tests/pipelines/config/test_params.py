"""params.yaml with a preset and a variant laid over it."""

import subprocess
import sys
from pathlib import Path

import pytest

from alexnet.errors import ParamsError
from pipelines.config import params

ROOT = Path(__file__).parents[3]


def test_a_variant_is_laid_over_a_preset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    shipped, both = params.load(), params.load(preset="imagenet", variant="no-dropout")
    assert (shipped.model.classes, shipped.model.dropout) == (10, 0.5)
    assert (both.model.classes, both.model.dropout) == (1000, 0.0)
    assert both.train == params.load(preset="imagenet").train


def test_a_preset_and_a_variant_that_do_not_exist_are_named_with_those_that_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(ParamsError, match="presets: has no 'nothing'; it has digits, folder, four-layer, imagenet, "):
        params.load(preset="nothing")
    with pytest.raises(ParamsError, match="variants: has no 'nothing'; it has tanh, one-tower"):
        params.load(variant="nothing")


def test_a_mistake_anywhere_in_the_file_is_named(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text()
    assert "ridge_alpha: 10.0" in text
    (tmp_path / "params.yaml").write_text(text.replace("ridge_alpha: 10.0", "ridge_alpha: -1"))
    with pytest.raises(ParamsError, match=r"^evaluate\.ridge_alpha: must be above 0, got -1\.0"):
        params.load(tmp_path / "params.yaml")


def test_reading_the_parameters_does_not_import_torch() -> None:
    program = "import sys, pipelines.config.params; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
