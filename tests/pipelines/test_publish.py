"""Publishing: what is in a release, and when its alias moves."""

import json
import logging
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd
from ruamel.yaml import YAML

from alexnet.errors import DataError
from pipelines import publish
from pipelines.config import params
from pipelines.evaluate import evaluate
from pipelines.extract import extract
from pipelines.probe import probe
from pipelines.publish import Inputs, lineage
from pipelines.registry.client import Client
from pipelines.registry.signing import PublicKey
from pipelines.registry.store import Registry
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import registry_bucket
from pipelines.validation import index
from tests.support.trained_folder import HISTORY, TrainedFolder, make_trained_folder

LOCK = """schema: '2.0'
stages:
  train:
    cmd: python -m pipelines.train
    outs: [{path: artifacts/model, md5: abc, size: 3}]
  publish:
    cmd: python -m pipelines.publish
    outs: [{path: artifacts/receipt.json, md5: def, size: 4}]
"""


@pytest.fixture(scope="module")
def evaluated(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What evaluate, probe and extract leave, made once."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        place = make_trained_folder(tmp_path_factory.mktemp("evaluated"), store, monkeypatch)
        evaluate(*map(place.path, ("model", "manifest.json", "pixels.npz", "history.csv", "metrics.json", "evaluation")))
        probe(place.path("model"), place.path("manifest.json"), place.path("probe"))
        extract(place.path("model"), place.path("manifest.json"), place.path("features.parquet"))
        return place.path("")


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, evaluated: Path, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    """Ready to publish."""
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch)
    shutil.copytree(evaluated, place.path(""), dirs_exist_ok=True)
    return place


def inputs(place: TrainedFolder) -> Inputs:
    names = (
        "model",
        "metrics.json",
        "evaluation",
        "probe",
        "features.parquet",
        "source.json",
        "index.parquet",
        "validation.json",
        "manifest.json",
        "pixels.npz",
        "history.csv",
        "training.json",
    )
    return Inputs(*map(place.path, names))


def change_params(old: str, new: str) -> None:
    path = Path("params.yaml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def test_a_release_is_published_once_and_pulled_whole(place: TrainedFolder, capsys: pytest.CaptureFixture[str]) -> None:
    """Also: published again it is the same version and the same receipt; nothing of the stage before leaks into it."""
    Path("dvc.lock").write_text(LOCK)
    publish.publish(inputs(place), place.path("receipt.json"))
    receipt = json.loads(place.path("receipt.json").read_text())
    assert receipt["held_back"] is None
    release, folder = Client(registry_bucket(), Path("other-cache")).pull("alexnet@latest", Path("pulled"))
    assert release.version == receipt["version"]
    assert {path: file.sha256 for path, file in release.files.items()} == receipt["files"]
    expected = {
        "README.md",
        "index.html",
        "transforms.py",
        "SHA256SUMS",
        "model.safetensors",
        "config.json",
        "features.parquet",
        "metrics.json",
    }
    expected |= {"params.yaml", "dvc.lock", "validation.json", "shards.json", "history.csv", "pictures/kernels.png"}
    expected |= {
        "index.parquet",
        "provenance.json",
        "source.json",
        "pixels.npz",
        "pictures/explained-1.html",
        "pictures/explained-1.png",
        "pictures/neighbors.svg",
    }
    assert expected < set(release.files)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", "SHA256SUMS"], cwd=folder, check=True)

    uploads = [CommitOperationAdd(path, folder / path) for path in receipt["files"]]  # what an upload to a hub would send
    assert {each.path_in_repo: each.upload_info.sha256.hex() for each in uploads} == receipt["files"]

    first = place.path("receipt.json").read_bytes()
    Path("dvc.lock").write_text(LOCK.replace("def", "fed"))  # of the publish stage itself
    publish.publish(inputs(place), place.path("receipt.json"))
    assert place.path("receipt.json").read_bytes() == first
    out = capsys.readouterr().out
    assert "publish: published alexnet@" in out
    assert "publish: was published already: alexnet@" in out
    assert not re.search(r"\d{4}-\d\d-\d\d", (folder / "README.md").read_text())  # no times


def test_a_release_is_signed_where_there_is_a_key(
    place: TrainedFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", "private.pem"],
        ["openssl", "pkey", "-in", "private.pem", "-pubout", "-out", "public.pem"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    monkeypatch.setenv("ALEXNET_SIGNING_KEY", str(tmp_path / "private.pem"))
    publish.publish(inputs(place), place.path("receipt.json"))
    key = PublicKey(tmp_path / "public.pem")
    _, folder = Client(registry_bucket(), Path("other-cache"), key).pull("alexnet@latest", Path("pulled"))
    body, signature = ((folder / name).read_bytes() for name in ("manifest.json", f"signatures/{key.id}.sig"))
    key.verify(body, signature, "here")
    assert b"PRIVATE" not in b"".join(path.read_bytes() for path in Path(".local").rglob("*") if path.is_file())


def test_the_alias_stays_behind_the_gate_while_the_version_is_published(
    place: TrainedFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    publish.publish(inputs(place), place.path("receipt.json"))
    registry = Registry(registry_bucket(), "alexnet")
    before = registry.alias("latest")
    change_params("max_top1_error: null", "max_top1_error: 0.0")
    publish.publish(inputs(place), place.path("receipt.json"))
    receipt = json.loads(place.path("receipt.json").read_text())
    assert "publish.max_top1_error allows 0.0" in receipt["held_back"]
    assert registry.alias("latest") == before
    assert receipt["version"] in registry.versions()
    assert "alexnet@latest and champion stay where they are" in capsys.readouterr().out


def test_a_run_that_does_not_publish_leaves_the_registry_alone(place: TrainedFolder) -> None:
    publish.decline(place.path("receipt.json"))
    receipt = json.loads(place.path("receipt.json").read_text())
    assert (receipt["version"], receipt["files"]) == (None, {})
    assert "an experiment" in receipt["held_back"]
    assert Registry(registry_bucket(), "alexnet").versions() == []


def test_an_experiment_that_publishes_when_asked_moves_no_alias(place: TrainedFolder) -> None:
    publish.publish(inputs(place), place.path("receipt.json"), experiment=True)
    receipt = json.loads(place.path("receipt.json").read_text())
    registry = Registry(registry_bucket(), "alexnet")
    assert registry.versions() == [receipt["version"]]
    assert registry.aliases() == {}
    assert receipt["held_back"].startswith("an experiment moves no alias")
    assert receipt["champion"] is None


def test_the_first_release_is_champion_and_the_next_is_compared_with_it(place: TrainedFolder) -> None:
    """Also: published again, it is the champion by the same comparison; the release does not depend on it."""
    registry = Registry(registry_bucket(), "alexnet")
    publish.publish(inputs(place), place.path("receipt.json"))
    first = json.loads(place.path("receipt.json").read_text())
    assert first["champion"]["is_champion"]
    assert first["champion"]["reason"] == "it is the first that passes the gate"
    place.path("history.csv").write_text(HISTORY.replace("1.2", "1.3"))
    publish.publish(inputs(place), place.path("receipt.json"))
    second = json.loads(place.path("receipt.json").read_text())
    outcome = second["champion"]
    assert (outcome["is_champion"], outcome["compared_with"]) == (True, first["version"])
    assert outcome["comparison"]["paired"]["images"] == 5
    assert outcome["comparison"]["error"] == outcome["comparison"]["champion_error"]
    written = place.path("receipt.json").read_bytes()
    publish.publish(inputs(place), place.path("receipt.json"))
    assert place.path("receipt.json").read_bytes() == written
    assert [each.move.version for each in registry.history("champion")] == [first["version"], second["version"]]
    assert registry.history("champion")[1].move.reason == outcome["reason"]
    page = publish.OUTCOME.read_text()
    assert f"alexnet@{second['version']} is champion" in page
    assert f"are those of {first['version']}." in page


def test_no_secret_is_in_anything_that_is_published_or_printed(
    place: TrainedFolder, fresh_store: Store, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    publish.publish(inputs(place), place.path("receipt.json"))
    secrets = [str(fresh_store.secret_key), str(fresh_store.access_key)]
    said = "".join(capfd.readouterr()) + caplog.text
    written = b"".join(path.read_bytes() for path in Path(".local").rglob("*") if path.is_file())
    for secret in secrets:
        assert secret not in said
        assert secret.encode() not in written + place.path("receipt.json").read_bytes()


def test_a_stage_that_was_not_run_is_named(place: TrainedFolder) -> None:
    place.path("metrics.json").write_text("{")
    with pytest.raises(DataError, match=r"metrics.json: .*; run the evaluate stage again"):
        publish.publish(inputs(place), place.path("receipt.json"))
    assert not place.path("receipt.json").exists()
    assert not Path(".local/release").exists()  # nothing half-made is left


def test_an_index_that_was_not_validated_is_not_published(place: TrainedFolder) -> None:
    index.write(index.SCHEMA.empty_table().drop_columns(["turn"]), place.path("index.parquet"))
    with pytest.raises(
        DataError, match=r"index.parquet: is not the index that .*validation.json is about; run the validate stage"
    ):
        publish.publish(inputs(place), place.path("receipt.json"))
    assert not Path(".local/release").exists()


def test_lineage_leaves_out_what_was_published_before_and_the_listing_of_times() -> None:
    listing = "  validate: {cmd: v, deps: [{path: artifacts/listing.json, md5: a}, {path: pipelines, md5: b}]}\n"
    tree = YAML(typ="safe", pure=True).load(lineage(LOCK + listing))
    assert list(tree["stages"]) == ["train", "validate"]
    assert [dep["path"] for dep in tree["stages"]["validate"]["deps"]] == ["pipelines"]
    assert tree["stages"]["train"]["outs"][0]["md5"] == "abc"


def test_a_release_holds_the_page_of_the_claims_where_the_checkout_does(place: TrainedFolder) -> None:
    without = publish.make_release(inputs(place), params.load())
    assert "story.html" not in without.files
    assert "(story.html)" not in Path(".local/release/README.md").read_text()
    Path("docs").mkdir()
    Path("docs/story.html").write_text("<h1>What made AlexNet win</h1>")
    release = publish.make_release(inputs(place), params.load())
    assert set(release.files) == {*without.files, "story.html"}
    assert Path(".local/release/story.html").read_bytes() == Path("docs/story.html").read_bytes()
    assert '<a href="story.html">story.html</a>: what made AlexNet win' in Path(".local/release/index.html").read_text()


def test_what_is_laid_out_is_a_release(place: TrainedFolder) -> None:
    release = publish.make_release(inputs(place), params.load())
    assert release.differences(Path(".local/release")) == []
    assert publish.make_release(inputs(place), params.load()) == release
