"""Released models, fetched, checked, listed and used as a user does."""

import json
from pathlib import Path

import pytest
from PIL import Image

import alexnet
from alexnet.errors import DataError
from pipelines.cli import main as cli
from pipelines.registry.store import Registry
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support.trained_folder import TrainedFolder


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    status = cli.main(arguments)
    out, err = capsys.readouterr()
    return status, out, err


def test_what_is_pulled_can_be_verified_and_used(shop: TrainedFolder, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "pull", "alexnet@latest", "--to", "here")
    assert (status, out) == (0, "here\n")
    assert "files" in err
    status, out, _ = run(capsys, "verify", "here", "--json")
    version = json.loads(out)["version"]
    Image.new("RGB", (300, 200), "red").save("picture.webp")
    status, out, _ = run(capsys, "predict", "picture.webp", "--model", "here", "--json")
    (found,) = json.loads(out)
    assert status == 0
    assert [guess["name"] for guess in found["classes"]] != []
    assert sum(guess["probability"] for guess in found["classes"]) == pytest.approx(1, abs=1e-4)
    status, again, _ = run(capsys, "predict", "picture.webp", "--json", "--model", f"alexnet@{version}")
    assert json.loads(again) == json.loads(out)
    Path("me@home").symlink_to("here")
    assert run(capsys, "predict", "picture.webp", "--json", "--model", "me@home")[1] == again
    status, text, err = run(capsys, "predict", "picture.webp", "nothing.jpg", "--offline", "--model", f"alexnet@{version}")
    assert status == 1
    assert text.startswith("picture.webp\n   ")
    assert err == "alexnet predict: error: nothing.jpg: No such file or directory\n"


def test_releases_are_listed_and_shown(shop: TrainedFolder, capsys: pytest.CaptureFixture[str]) -> None:
    listed = json.loads(run(capsys, "releases", "--json")[1])
    latest = listed["aliases"]["latest"]
    assert {latest["version"], latest["previous"]} == {each["version"] for each in listed["releases"]}
    (newest,) = [each for each in listed["releases"] if each["version"] == latest["version"]]
    assert (newest["aliases"], newest["signed_by"], newest["top1_error"]) == (["latest"], [], None)
    assert json.loads(run(capsys, "show-release", "--json")[1]) == newest
    assert sum(file["bytes"] for file in newest["files"].values()) == newest["bytes"]
    assert f"alexnet@{latest['version']}  " in run(capsys, "releases")[1]
    assert "README.md" in run(capsys, "show-release", f"alexnet@{latest['previous']}")[1]
    assert "no such alias" in run(capsys, "show-release", "alexnet@other")[2]


def test_one_damaged_release_hides_no_other(
    shop: TrainedFolder, fresh_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = Bucket(fresh_store.registry, fresh_store)
    _, damaged = (each["version"] for each in json.loads(run(capsys, "releases", "--json")[1])["releases"])
    bucket.put(f"alexnet/versions/{damaged}/manifest.json", b"{")
    status, out, err = run(capsys, "releases")
    assert status == 1
    assert len(out.splitlines()) == 1
    assert err.startswith(f"alexnet releases: error: alexnet@{damaged}: manifest.json: damaged")


def test_one_torn_alias_hides_nothing_else_and_is_mended(
    shop: TrainedFolder, fresh_store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket = Bucket(fresh_store.registry, fresh_store)
    whole = bucket.get("alexnet/aliases/latest.json")
    bucket.put("alexnet/aliases/latest.json", b"")
    for command in ("releases", "history"):
        status, _, err = run(capsys, command)
        assert (status, "alexnet/aliases/latest.json: damaged" in err) == (1, True)
    assert len(json.loads(run(capsys, "releases", "--json")[1])["releases"]) == 2
    status, out, err = run(capsys, "releases", "--verify")
    assert (status, err) == (1, "alexnet/aliases/latest.json: is not the move that was made\n")
    assert "1 objects damaged; --repair mends what can be" in out
    assert run(capsys, "releases", "--verify", "--repair")[0] == 0
    assert bucket.get("alexnet/aliases/latest.json") == whole
    assert "2 versions" in run(capsys, "releases", "--verify")[1]


def test_three_lines_of_python_use_a_release(shop: TrainedFolder, fresh_store: Store) -> None:
    Image.new("RGB", (300, 200), "red").save("picture.webp")
    expected = shop.model.config
    version = Registry(Bucket(fresh_store.registry, fresh_store), "alexnet").versions()[0]
    bucket = fresh_store.registry
    places = (
        "alexnet@latest",
        f"s3://{bucket}/alexnet@latest",
        f"s3://{bucket}/alexnet/versions/{version}/",
        "artifacts/model",
    )
    for place in places:
        model = alexnet.load(place)
        assert model.config == expected
        assert len(model.predict(["picture.webp"])[0]) == 3
    with pytest.raises(DataError, match="write s3://BUCKET/NAME@ALIAS or s3://BUCKET/NAME/versions/VERSION"):
        alexnet.load("s3://bucket")


def test_a_changed_folder_does_not_verify(shop: TrainedFolder, capsys: pytest.CaptureFixture[str]) -> None:
    run(capsys, "pull", "--to", "here")
    Path("here/README.md").write_text("changed")
    assert run(capsys, "verify", "here")[::2] == (1, "alexnet verify: error: here: README.md: changed; pull it again\n")
    assert "give a folder that `alexnet pull` made" in run(capsys, "verify", "artifacts/model")[2]


def test_a_place_that_cannot_be_is_named_on_one_line(shop: TrainedFolder, capsys: pytest.CaptureFixture[str]) -> None:
    Path("file").touch()
    status, _, err = run(capsys, "pull", "--to", "file/model")
    assert status == 1
    assert err.startswith("alexnet pull: error: file")
    assert "Not a directory" in err or "File exists" in err
    assert len(err.splitlines()) == 1
    assert "is the current folder" in run(capsys, "pull", "--to", ".")[2]
