"""Rules of the repository: dvc.yaml lists the code of every stage, params load, modules have tests, files name no machine."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections import Counter
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import pytest
import yaml

from flows.dag import stages_for
from pipelines.cli import main
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
def test_every_module_a_stage_imports_is_in_its_deps_or_cannot_change_a_result(stage: str) -> None:
    assert dvc_deps.missing(STAGES[stage]) == [], "list them in dvc.yaml, or in tools/dvc_deps.py with the reason"


@pytest.mark.parametrize("stage", STAGES)
def test_no_stage_depends_on_code_that_it_does_not_import(stage: str) -> None:
    assert dvc_deps.needless(STAGES[stage]) == []


def test_a_missing_and_a_needless_dependency_are_found() -> None:
    deps = [dep for dep in STAGES["train"]["deps"] if dep != "alexnet/model"]
    assert "alexnet/model/network.py" in dvc_deps.missing(STAGES["train"] | {"deps": deps})
    stage = STAGES["train"] | {"deps": [*STAGES["train"]["deps"], "pipelines/sources", "alexnet/model/network.py"]}
    assert dvc_deps.needless(stage) == ["alexnet/model/network.py", "pipelines/sources"]


@pytest.mark.parametrize("path", dvc_deps.CANNOT_CHANGE_A_RESULT)
def test_what_cannot_change_a_result_is_code_that_a_stage_imports(path: str) -> None:
    files = set().union(*(dvc_deps.imported(dvc_deps.program(stage)) for stage in STAGES.values()))
    assert [file for file in files if file == path or file.startswith(f"{path}/")], path


def test_a_log_line_trains_nothing_again() -> None:
    """The console, the downloads and the launcher are in no folder that the train stage depends on."""
    for file in ("pipelines/runtime/console.py", "pipelines/runtime/launch.py", "alexnet/shards/download.py"):
        assert file in dvc_deps.imported("pipelines.train")
        assert not any(file.startswith(dep) for dep in STAGES["train"]["deps"]), file


def test_dvc_yaml_is_read_in_one_screen() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) < 140


def test_compiled_python_is_no_dependency(tmp_path: Path) -> None:
    """A folder's __pycache__ changes with every interpreter; DVC must not hash it."""
    (tmp_path / "code" / "__pycache__").mkdir(parents=True)
    (tmp_path / ".dvc").mkdir()
    for file in (".dvcignore", ".dvc/config"):
        shutil.copy(ROOT / file, tmp_path / file)
    (tmp_path / "code" / "module.py").write_text("1")
    compiled = tmp_path / "code" / "__pycache__" / "module.pyc"
    compiled.write_text("1")
    (tmp_path / "dvc.yaml").write_text("stages: {copy: {cmd: cp code/module.py out, deps: [code], outs: [out]}}")

    def repro() -> str:
        command = [sys.executable, "-m", "dvc", "repro"]
        env = os.environ | {"PATH": os.defpath}
        return subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=True).stdout

    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    assert "Running stage 'copy'" in repro()
    assert "nfiles: 1" in (tmp_path / "dvc.lock").read_text()
    compiled.write_text("2")
    assert "Running stage" not in repro()
    (tmp_path / "code" / "module.py").write_text("2")
    assert "Running stage 'copy'" in repro()


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_has_one_name_everywhere(stage: str) -> None:
    assert dvc_deps.program(STAGES[stage]) == f"pipelines.{stage}"
    assert list((ROOT / "tests" / "pipelines").glob(f"test_{stage}*.py")), f"tests/pipelines/test_{stage}.py"
    sections = yaml.safe_load((ROOT / "params.yaml").read_text())
    if stage in sections:
        assert stage in STAGES[stage]["params"]


@pytest.mark.parametrize("stage", STAGES)
def test_dvc_tracks_every_path_of_a_stages_command(stage: str) -> None:
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
    """DVC would delete the whole prefix before it runs the stage again."""
    assert "s3://" not in str(DVC)


def test_the_flow_runs_every_stage_after_its_dependencies() -> None:
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


PACKAGES = ("alexnet", "pipelines", "flows", "infra", "tools")
MODULES = [path.relative_to(ROOT) for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
# Both lists only shrink.
WITHOUT_A_TEST: set[str] = set()
WITH_MANY_PARAMETERS: set[str] = set()


def test_no_folder_has_more_than_twelve_modules() -> None:
    counts = Counter(module.parent for module in MODULES if module.name != "__init__.py")
    assert counts
    assert {str(folder): count for folder, count in counts.items() if count > 12} == {}


def _has_a_test(module: Path) -> bool:
    """Whether a test in the same folder of the tests has its name, `test_loader.py` or `test_loader_faults.py`."""
    return any((ROOT / "tests" / module.parent).glob(f"test_{module.stem}*.py"))


def test_every_module_has_a_test_of_its_name() -> None:
    modules = [module for module in MODULES if module.parts[0] in ("alexnet", "pipelines") and module.name != "__init__.py"]
    assert {str(module) for module in modules if not _has_a_test(module)} <= WITHOUT_A_TEST


def test_every_text_file_is_opened_with_its_encoding() -> None:
    """Otherwise the locale decides, and a published name is another one on another machine."""
    found = []
    for module in MODULES:
        for node in ast.walk(ast.parse((ROOT / module).read_text(encoding="utf-8"))):
            name = ast.unparse(node.func).rpartition(".")[2] if isinstance(node, ast.Call) else ""
            if isinstance(node, ast.Call) and name in ("open", "fdopen", "read_text", "write_text"):
                modes = {*map(ast.unparse, (*node.args, *(word.value for word in node.keywords if word.arg == "mode")))}
                is_text = name != "open" or not node.args or modes & {"'w'", "'r'", "'a'", "'x'"}
                is_path = ast.unparse(node.func).partition(".")[0] not in ("Image", "tarfile", "os") or name == "fdopen"
                if is_text and is_path and not any(word.arg == "encoding" for word in node.keywords):
                    found.append(f"{module}:{node.lineno}")
    assert found == []


def test_no_function_has_more_than_six_parameters() -> None:
    many = set()
    for module in MODULES:
        for node in ast.walk(ast.parse((ROOT / module).read_text())):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                takes = node.args
                named = [one for one in (*takes.posonlyargs, *takes.args, *takes.kwonlyargs) if one.arg not in ("self", "cls")]
                if len(named) + (takes.vararg is not None) + (takes.kwarg is not None) > 6:
                    many.add(f"{module}: {node.name}")
    assert many <= WITH_MANY_PARAMETERS


def test_no_two_classes_have_the_same_name() -> None:
    modules = [module for module in MODULES if module.parts[0] in ("alexnet", "pipelines")]
    trees = [ast.parse((ROOT / module).read_text()) for module in modules]
    names = Counter(node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    assert [name for name, count in names.items() if count > 1] == []


def test_a_wheel_has_every_file_that_the_code_reads() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (patterns,) = project["tool"]["setuptools"]["package-data"].values()
    files = {path for path in _tracked() if path.relative_to(ROOT).parts[0] in ("alexnet", "pipelines")}
    others = {path.name for path in files if path.suffix != ".py"}
    assert "cpu.cpp" in others
    assert {name for name in others if not any(fnmatch(name, pattern) for pattern in patterns)} == set()


README = (ROOT / "README.md").read_text()


def _code(text: str) -> str:
    """What a Markdown text sets as code: fenced blocks, indented blocks and spans."""
    return "\n".join(
        "".join(groups) for groups in re.findall(r"^```\n(.*?)^```$|^    ([^\n]+)$|`([^`\n]+)`", text, re.MULTILINE | re.DOTALL)
    )


DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_path_in_a_document_exists(document: Path) -> None:
    top = {path.relative_to(ROOT).parts[0] for path in _tracked()}
    code = _code(document.read_text())
    named = {path for path in re.findall(r"(?<![\w/.@-])[\w.-]+(?:/[\w.-]+)*/?", code) if path.split("/")[0] in top}
    paths = {path for path in named if ("/" in path or "." in path) and not re.search(r"VERB|NAME", path)}
    assert {path for path in paths if not (ROOT / path).exists()} == set()


def test_every_command_in_the_documents_exists() -> None:
    code = "\n".join(_code(document.read_text()) for document in DOCUMENTS)
    modules = set(re.findall(r"-m ((?:alexnet|benchmarks|flows|infra|pipelines|tests|tools)(?:\.[a-z_]+)*)", code))
    assert "infra.stack" in modules
    assert {module for module in modules if not _is_module(ROOT / Path(*module.split(".")))} == set()
    verbs = set(re.findall(r"(?:^|[\s/])alexnet ([a-z-]+)", code, re.MULTILINE))
    assert {"pull", "use"} <= verbs
    for verb in verbs:
        with pytest.raises(SystemExit, match="^0$"):
            main.main([verb, "--help"])


def _is_module(path: Path) -> bool:
    return path.with_suffix(".py").exists() or (path / "__main__.py").exists() or path.is_dir()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_between_documents_leads_somewhere(document: Path) -> None:
    prose = re.sub(r"^```\n.*?^```$|`[^`\n]+`", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\((?!https?://)([^)\s]+)\)", prose):
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{document.name} links to {target}"
        if anchor:
            text = file.read_text()
            headings = map(_anchor, re.findall(r"^#+ (.+)$", text, re.MULTILINE))
            assert anchor in {*headings, *re.findall(r' id="([\w-]+)"', text)}, f"{document.name} links to {target}"


def _anchor(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    return re.sub(r"[^\w\s-]", "", heading.lower()).replace(" ", "-")


def test_the_readme_shows_every_folder_and_no_other() -> None:
    tree = README.partition("## Where things are")[2].split("```")[1]
    shown: set[str] = set()
    parent = ""
    for indent, name in re.findall(r"^( *)(\w+)/ ", tree, re.MULTILINE):
        parent = parent if indent else name
        shown.add(f"{parent}/{name}" if indent else name)
    folders = {path.relative_to(ROOT).parent for path in _tracked()}
    expected = {folder.parts[0] for folder in folders if folder.parts and not folder.parts[0].startswith(".")}
    expected |= {str(folder) for folder in folders if len(folder.parts) == 2 and folder.parts[0] in ("alexnet", "pipelines")}
    assert shown == expected


def test_six_files_tell_the_whole() -> None:
    sentence = re.search(r"Read these six and you know the whole: (.*?)\.\n", README, re.DOTALL)
    assert sentence
    assert len(re.findall(r"`[^`]+`", sentence[1])) == 6


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name]


def test_no_file_names_a_path_or_host_of_one_machine() -> None:
    """Home folders, mounts and package hosts of one machine."""
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
