"""Presets over params.yaml."""

import re
import shutil
from pathlib import Path

import pytest
from dvc.utils.hydra import apply_overrides

from alexnet.errors import ParamsError
from pipelines.config import params, presets, tree

ROOT = Path(__file__).parents[3]
FOLDER = ROOT / "presets"
OTHERS = sorted(path.stem for path in FOLDER.glob("*.yaml") if path.stem != params.SHIPPED)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A copy of the shipped params.yaml."""
    return Path(shutil.copyfile(ROOT / "params.yaml", tmp_path / "params.yaml"))


def test_the_shipped_preset_changes_nothing_of_the_shipped_params(file: Path) -> None:
    assert presets.use("digits", file, FOLDER) == []
    assert file.read_bytes() == (ROOT / "params.yaml").read_bytes()


@pytest.mark.parametrize("name", OTHERS)
def test_the_shipped_preset_has_every_leaf_that_another_changes(name: str) -> None:
    shipped, other = (presets.leaves(tree.read(FOLDER / f"{each}.yaml")) for each in (params.SHIPPED, name))
    assert set(other) <= set(shipped)


@pytest.mark.parametrize("name", OTHERS)
def test_a_preset_laid_over_is_the_preset_loaded_and_the_way_back_is_exact(
    name: str, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(params, "PRESETS", FOLDER)
    assert presets.use(name, file, FOLDER) != []
    assert params.load(file) == params.load(ROOT / "params.yaml", preset=name)
    assert file.read_text().count("#") == (ROOT / "params.yaml").read_text().count("#")  # every comment is still there
    presets.use("digits", file, FOLDER)
    assert file.read_bytes() == (ROOT / "params.yaml").read_bytes()


@pytest.mark.parametrize("name", [params.SHIPPED, *OTHERS])
def test_dvc_changes_no_line_but_that_of_the_parameter(name: str, file: Path) -> None:
    """What `dvc exp run -S train.batch_size=7` writes, by DVC's own writer."""
    presets.use(name, file, FOLDER)
    lines = file.read_text().splitlines()
    apply_overrides(file, ["train.batch_size=7"])
    after = file.read_text().splitlines()
    assert [new for old, new in zip(lines, after, strict=True) if old != new] == ["  batch_size: 7"]


@pytest.mark.parametrize("name", [params.SHIPPED, *OTHERS])
def test_a_preset_says_what_runs_it_and_what_to_expect_and_is_recognized(name: str, file: Path) -> None:
    about = presets.about(name, FOLDER)
    assert f"alexnet use {name}" in about.run
    assert "make run" in about.run
    assert about.description
    assert about.expect.endswith(".")
    presets.use(name, file, FOLDER)
    assert presets.chosen(file, FOLDER) == name
    file.write_text(file.read_text().replace("momentum: 0.9", "momentum: 0.8"))
    assert presets.chosen(file, FOLDER) == name  # no preset has it
    file.write_text(re.sub(r"  epochs: \d+", "  epochs: 1", file.read_text(), count=1))
    assert presets.chosen(file, FOLDER) is None


def test_a_preset_without_a_command_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("# My run.\n# Expect: nothing.\nseed: 2\n")
    with pytest.raises(ParamsError, match=r"mine\.yaml: its first comment must have lines that start with `# Run: `"):
        presets.about("mine", tmp_path)


def test_a_preset_loaded_over_another_in_use_is_as_by_use(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(params, "PRESETS", FOLDER)
    presets.use("imagenet", file, FOLDER)
    assert params.load(file, preset="folder") == params.load(ROOT / "params.yaml", preset="folder")


def test_presets_do_not_pile_up(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in OTHERS:
        presets.use(name, file, FOLDER)
    monkeypatch.setattr(params, "PRESETS", FOLDER)
    assert params.load(file) == params.load(ROOT / "params.yaml", preset=OTHERS[-1])


def test_what_no_preset_changes_stays_as_its_owner_left_it(file: Path) -> None:
    file.write_text(file.read_text().replace("seed: 1\n", "seed: 7   # mine\n").replace("momentum: 0.9", "momentum: 0.8"))
    presets.use("imagenet", file, FOLDER)
    assert "seed: 7   # mine\n" in file.read_text()
    assert params.load(file).train.momentum == 0.8


def test_a_preset_that_does_not_fit_leaves_params_alone(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "digits.yaml").write_text("{}\n")
    (folder / "wrong.yaml").write_text("model: {clases: 3}\n")
    (folder / "typed.yaml").write_text("model: {classes: '3'}\n")
    before = file.read_bytes()
    with pytest.raises(ParamsError, match=r"presets.wrong.model: changes clases, which the base does not have"):
        presets.use("wrong", file, folder)
    with pytest.raises(ParamsError, match=r"model.classes: must be a whole number, got '3'"):
        presets.use("typed", file, folder)
    assert file.read_bytes() == before
