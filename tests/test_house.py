"""Rules of the house: one word a stage, every stage's code among its deps, no place in the repository, params that load."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.dag import stages_for
from pipelines.config import params, tree
from tools import dvc_deps

ROOT = Path(__file__).parents[1]
DVC: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())
STAGES: dict[str, Any] = DVC["stages"]
PRESETS = sorted(path.stem for path in (ROOT / "presets").glob("*.yaml"))


@pytest.fixture(autouse=True)
def _at_the_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_depends_on_exactly_the_code_it_imports(stage: str) -> None:
    listed = {dep for dep in STAGES[stage].get("deps", []) if dep.split("/")[0] in ("alexnet", "pipelines")}
    imported = set(dvc_deps.code_deps(dvc_deps.program(STAGES[stage])))
    assert listed == imported, "run `make dvc-deps`"


def test_writing_the_dependencies_again_changes_nothing() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    assert dvc_deps.rewrite(text) == text


def test_a_module_that_is_missing_among_the_deps_is_written_there() -> None:
    text = (ROOT / "dvc.yaml").read_text()
    without = "".join(
        line
        for line in text.splitlines(keepends=True)
        if line.strip() not in ("- pipelines/fetch.py", "- alexnet/training/trainer.py")
    )
    assert without != text
    assert dvc_deps.rewrite(without) == text


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_name_everywhere(stage: str) -> None:
    assert dvc_deps.program(STAGES[stage]) == f"pipelines.{stage}"
    assert list((ROOT / "tests" / "pipelines").glob(f"test_{stage}*.py")), f"tests/pipelines/test_{stage}.py"
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    if stage in sections:
        assert stage in STAGES[stage]["params"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_names_the_paths_that_dvc_knows(stage: str) -> None:
    """What a stage reads and writes is in its command; what is in its command DVC tracks."""
    entries = [*STAGES[stage].get("deps", []), *STAGES[stage]["outs"]]
    tracked = {entry if isinstance(entry, str) else next(iter(entry)) for entry in entries}
    named = set(re.findall(r"artifacts/[\w./-]+", STAGES[stage]["cmd"]))
    assert named == {path for path in tracked if path.startswith("artifacts/")}


@pytest.mark.parametrize("stage", STAGES)
def test_the_parameters_of_a_stage_are_in_params_yaml(stage: str) -> None:
    for name in STAGES[stage].get("params", []):
        value: Any = yaml.safe_load((ROOT / "params.yaml").read_text())
        for part in name.split("."):
            assert part in value, name
            value = value[part]


def test_no_output_lies_in_a_bucket() -> None:
    """DVC deletes a whole prefix before it runs a stage again."""
    assert "s3://" not in str(DVC)


def test_the_flow_runs_every_stage_in_an_order_that_works() -> None:
    order = stages_for("publish")
    made: set[str] = set()
    for stage in order:
        needed = {dep for dep in STAGES[stage].get("deps", []) if dep.startswith("artifacts/")}
        assert needed <= made
        made |= {out if isinstance(out, str) else next(iter(out)) for out in STAGES[stage]["outs"]}
    assert set(order) == set(STAGES)


def test_the_shipped_parameters_load() -> None:
    assert params.load().source.name == "digits"


@pytest.mark.parametrize("preset", PRESETS)
def test_a_preset_overlays_cleanly(preset: str) -> None:
    assert isinstance(params.load(preset=preset), params.Params)


@pytest.mark.parametrize("variant", tree.read(ROOT / "params.yaml").get("variants") or {})
def test_a_variant_overlays_cleanly(variant: str) -> None:
    assert isinstance(params.load(variant=variant), params.Params)


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_file_speaks_of_one_machine() -> None:
    """Home folders, mounts of one machine, and package hosts have no place in what others read."""
    machine = re.compile(
        r"(?<![\w.])/(?:root|work|home|Users|opt)/\w|https?://(?!127\.0\.0\.1|localhost)[\w.-]*(?:pypi|artifactory|nexus)[\w.]*/simple"
    )
    found = []
    for path in _tracked():
        if path.suffix in (".lock", ".png", ".jpg", ".npz", ".parquet") or path == Path(__file__) or not path.is_file():
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            if machine.search(line):
                found.append(f"{path.relative_to(ROOT)}:{number}: {line.strip()[:120]}")
    assert not found, "\n".join(found)


def test_the_lock_names_no_package_host() -> None:
    text = (ROOT / "requirements.lock").read_text()
    assert "index-url" not in text
    assert "http" not in re.sub(r"^.*(#|==).*$", "", text, flags=re.MULTILINE)


def test_every_package_in_the_lock_has_a_hash() -> None:
    entries = re.split(r"\n(?=[A-Za-z0-9])", (ROOT / "requirements.lock").read_text())
    assert len(entries) > 200
    assert [entry.splitlines()[0] for entry in entries if "--hash=sha256:" not in entry] == []
