"""Aliases as a user moves them, and their history."""

import json
from pathlib import Path

import pytest

from pipelines.cli import main as cli
from pipelines.registry.release import Release
from pipelines.registry.store import Registry
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support.trained_folder import TrainedFolder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def versions(shop: TrainedFolder, fresh_store: Store) -> tuple[str, str]:
    """The version that latest points at, and the one before."""
    latest = Registry(Bucket(fresh_store.registry, fresh_store), "alexnet").alias("latest")
    assert latest is not None
    assert latest.previous is not None
    return latest.version, latest.previous


def test_a_release_is_promoted_and_rolled_back_and_both_are_recorded(
    versions: tuple[str, str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    newest, before = versions
    monkeypatch.setenv("ALEXNET_WHO", "ada\x1b[31m")
    assert run(capsys, "promote", f"alexnet@{before}") == (0, f"alexnet@champion is {before}\n", "")
    status, out, _ = run(capsys, "promote", "alexnet@latest", "--reason", "new classes", "--json")
    moved = json.loads(out)
    assert (status, moved["alias"], moved["version"], moved["previous"]) == (0, "champion", newest, before)
    assert (moved["number"], moved["action"], moved["reason"]) == (1, "promote", "new classes")
    status, out, _ = run(capsys, "rollback", "alexnet@champion", "--reason", "takes birds for planes")
    assert (status, out) == (0, f"alexnet@champion is {before} (before: {newest})\n")
    records = json.loads(run(capsys, "history", "alexnet@champion", "--json")[1])
    assert [each["move"]["action"] for each in records] == ["promote", "promote", "rollback"]
    status, out, err = run(capsys, "history")
    assert (status, err, len(out.splitlines())) == (0, "", 5)  # and two of latest
    assert "rollback by ada\\x1b[31m: takes birds for planes" in out
    assert "\x1b" not in out
    assert run(capsys, "history", "alexnet@other")[1].startswith("alexnet@other: was never moved in s3://")


def test_what_cannot_be_moved_is_named(versions: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = run(capsys, "rollback", f"alexnet@{versions[0]}")
    assert status == 1
    assert "a version never moves; name an alias" in err
    assert "no such alias; s3://" in run(capsys, "promote", "alexnet@other")[2]
    assert "no such version" in run(capsys, "promote", "alexnet@0123456789abcdef")[2]
    assert "--alias: 'Up': no name of an alias" in run(capsys, "promote", "alexnet@latest", "--alias", "Up")[2]


def test_a_version_is_promoted_only_as_it_was_published_and_signed(
    versions: tuple[str, str], fresh_store: Store, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = Ed25519PrivateKey.generate().public_key()
    Path("key.pub").write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    with monkeypatch.context() as signed:
        signed.setenv("ALEXNET_VERIFY_KEY", "key.pub")
        assert "not signed by key" in run(capsys, "promote", "alexnet@latest")[2]
    Bucket(fresh_store.registry, fresh_store).put(f"alexnet/versions/{versions[0]}/manifest.json", b"{")
    assert "manifest.json" in run(capsys, "promote", "alexnet@latest")[2]
    assert run(capsys, "history", "alexnet@champion")[1].startswith("alexnet@champion: was never moved")


def test_a_model_no_better_than_a_baseline_is_promoted_with_a_warning(
    shop: TrainedFolder, fresh_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = shop.path("model")
    errors = {name: {"top1_error": error} for name, error in (("majority", 0.9), ("ridge", 0.3))}
    (folder / "metrics.json").write_text(json.dumps({"center_crop": {"top1_error": 0.3}, "baselines": errors}))
    release = Release.from_folder("alexnet", folder)
    Registry(Bucket(fresh_store.registry, fresh_store), "alexnet").publish(release, folder, None)
    status, _, err = run(capsys, "promote", f"alexnet@{release.version}")
    assert (status, err) == (
        0,
        f"alexnet promote: alexnet@{release.version} is not better than ridge; promoted as asked\n",
    )


def test_a_history_that_was_changed_is_named(
    versions: tuple[str, str], fresh_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    Bucket(fresh_store.registry, fresh_store).delete("alexnet/history/latest/000000.json")
    status, out, err = run(capsys, "history")
    assert (status, len(out.splitlines())) == (1, 1)
    assert "alexnet@latest, move 1: does not follow the move before it" in err
