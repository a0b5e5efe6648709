"""Provenance: what git says of the checkout, and what of a release dvc.lock does not."""

import subprocess
from pathlib import Path

import pytest

from pipelines.publishing import provenance
from pipelines.publishing.provenance import Provenance


def git(*arguments: str) -> str:
    command = ["git", "-c", "user.name=n", "-c", "user.email=e", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


@pytest.fixture
def commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Of a checkout with two files of code."""
    monkeypatch.chdir(tmp_path)
    for path in ("alexnet/model/a.py", "alexnet/model/b.py", "pipelines/train.py", "README.md"):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_text(path)
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "one")
    return git("rev-parse", "HEAD")


def test_outside_of_git_nothing_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert str(provenance.of_checkout()).startswith("unknown; git said: fatal: not a git repository")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "git said: [Errno 2] No such file" in str(provenance.of_checkout())


def test_files_that_differ_from_the_commit_are_named(commit: str) -> None:
    assert provenance.of_checkout() == Provenance(commit, ())
    Path("dvc.lock").touch()
    Path("README.md").write_text("other")
    Path("alexnet/new.py").touch()
    git("add", "dvc.lock", "alexnet/new.py")
    assert provenance.of_checkout() == Provenance(commit, ("README.md", "alexnet/new.py"))
    assert str(provenance.of_checkout()) == f"{commit} with changes in README.md, alexnet/new.py"


def test_code_is_compared_as_dvc_names_it(commit: str) -> None:
    """The digest of a folder is the one that DVC 3.67 wrote for these two files."""
    deps = [
        {"path": "alexnet/model", "md5": "a22ad2c16467b5cd9de7a3222075d66d.dir"},
        {"path": "pipelines/train.py", "md5": "c8566149e04312038329cc2d830414e0"},
        {"path": "artifacts/model", "md5": "not code"},
    ]
    assert provenance.changed_code(commit, {"stages": {"train": {"deps": deps}}}) == []
    deps[0]["md5"] = "0.dir"
    deps.append({"path": "alexnet/gone.py", "md5": "0"})
    assert provenance.changed_code(commit, {"stages": {"train": {"deps": deps}}}) == ["alexnet/gone.py", "alexnet/model"]
    with pytest.raises(subprocess.SubprocessError):
        provenance.changed_code("0" * 40, {"stages": {}})


def test_data_and_parameters_that_are_not_the_locks_are_named(tmp_path: Path) -> None:
    for name in ("config.json", "model.safetensors", "shards.json"):
        (tmp_path / name).write_text(name)
    outs = [
        {"path": "artifacts/manifest.json", "md5": "0"},
        {"path": "artifacts/model", "md5": "aecd48e2c9b884a5cf1c96104eb7b31c.dir"},
    ]
    stage = {"outs": outs, "params": {"params.yaml": {"seed": 1, "shard.filter": "area", "gone": [1]}}}
    lock = {"stages": {"train": stage}}
    assert provenance.changed_data(tmp_path, lock) == ["shards.json"]
    assert provenance.changed_params({"seed": 1, "shard": {"filter": "triangle"}, "gone": [1]}, lock) == ["shard.filter"]
