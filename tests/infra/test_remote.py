"""DVC's remote: the bucket that the pipeline uses, and no credential."""

import json
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from infra import remote
from infra.stack import Stack

ROOT = Path(__file__).parents[2]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository of DVC's with nothing in it; the working directory."""
    monkeypatch.chdir(tmp_path)
    subprocess.run(["git", "init", "-q"], check=True)
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / ".gitignore").write_text((ROOT / ".dvc" / ".gitignore").read_text())
    return tmp_path


def _dvc(*arguments: str, cwd: Path | None = None) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *arguments], capture_output=True, text=True, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_what_one_checkout_pushes_to_the_local_store_another_pulls(repository: Path, stack: Stack) -> None:
    places = json.loads((stack.folder / "places.json").read_text())
    assert remote.configure_local(stack.folder / "places.json") == f"s3://{places['bucket']}/dvc"
    (repository / "model").write_text("weights")
    _dvc("add", "-q", "model")
    _dvc("push", "-q")
    (repository / "model").unlink()
    subprocess.run(["rm", "-r", ".dvc/cache"], check=True)
    _dvc("pull", "-q")
    assert (repository / "model").read_text() == "weights"
    written = (repository / ".dvc/config.local").read_text()
    assert places["secret_key"] not in written
    assert places["access_key"] not in written
    assert stat.S_IMODE((stack.folder / "credentials").stat().st_mode) == 0o600
    assert subprocess.run(["git", "check-ignore", "-q", ".dvc/config.local"]).returncode == 0


def test_a_bucket_is_named_without_its_credentials_and_other_settings_stay(
    repository: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / ".dvc/config.local").write_text("[core]\n    autostage = true\n")
    monkeypatch.setenv("AWS_REGION", "here")
    for name, value in (
        ("ALEXNET_BUCKET", "data"),
        ("AWS_ENDPOINT_URL", "http://store:1"),
        ("AWS_SECRET_ACCESS_KEY", "canary"),
    ):
        monkeypatch.setenv(name, value)
    assert remote.main() == 0
    assert capsys.readouterr().out == "dvc's remote `store` is s3://data/dvc; `dvc push`, `dvc pull`\n"
    settings = [line.strip() for line in (repository / ".dvc/config.local").read_text().splitlines()]
    assert settings[:4] == ["[core]", "autostage = true", "remote = store", "['remote \"store\"']"]
    assert set(settings[4:]) == {"url = s3://data/dvc", "verify = true", "endpointurl = http://store:1", "region = here"}
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:canary@store:1")
    assert remote.main() == 0
    assert "canary" not in (repository / ".dvc/config.local").read_text()


def test_without_a_bucket_or_a_checkout_it_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert remote.main() == 1
    (tmp_path / ".dvc").mkdir()
    assert remote.main() == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == "error: .dvc: no such folder; run in a checkout"
    assert second == "error: ALEXNET_BUCKET is not set and no local store runs; name a bucket, or `make up`"


def test_a_remote_that_stands_is_left_alone_and_another_is_replaced(repository: Path, stack: Stack) -> None:
    places, local = stack.folder / "places.json", repository / ".dvc/config.local"
    remote.configure_local(places)
    written = (local.read_text(), local.stat().st_mtime_ns)
    remote.configure_local(places)
    assert (local.read_text(), local.stat().st_mtime_ns) == written
    remote.configure("elsewhere", {})
    assert "url = s3://elsewhere/dvc" in local.read_text()
    remote.configure_local(places)
    assert local.read_text() == written[0]
