"""A release followed back to its images: right where all of it is at hand, and every kind of change is named."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from alexnet.shards.manifest import Manifest
from pipelines import shard
from pipelines.cli import main as cli
from pipelines.config import params
from pipelines.registry.release import Release
from pipelines.runtime.environment import Store
from pipelines.sources.open import open_source
from pipelines.storage.bucket import Bucket
from pipelines.validate import build_index, make_report
from pipelines.validation import index
from tests.support.stage_folder import INDEX, MANIFEST, PIXELS, REPORT, make_image_folder, make_stage_folder

LINKS = ["release", "code", "lineage", "model", "index", "shards", "source", "validation"]


@pytest.fixture
def folder(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A release of sixteen images that were validated and sharded, in a folder; its network is not one."""
    (tmp_path / "work").mkdir()
    make_stage_folder(tmp_path / "work", fresh_store, make_image_folder(tmp_path / "images"), monkeypatch)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path))
    given = params.load()
    table = build_index(open_source(given.source), given.source, given.validate)
    report = make_report("folder", table, given.validate, [], index.write(table, INDEX))
    report.write(REPORT)
    shard.main(INDEX, MANIFEST, PIXELS)
    folder = Path("release")
    folder.mkdir()
    shutil.copy(MANIFEST, folder / "shards.json")
    for path in (INDEX, REPORT, Path("params.yaml")):
        shutil.copy(path, folder)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "config.json").write_text(json.dumps({"synsets": json.loads(MANIFEST.read_text())["synsets"]}))
    (folder / "provenance.json").write_text(json.dumps({"commit": "ab" * 20, "changed": []}))
    (folder / "dvc.lock").write_text("schema: '2.0'\nstages: {shard: {params: {params.yaml: {seed: 1}}}}\n")
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    (folder / "manifest.json").write_bytes(Release.from_folder("alexnet", folder).manifest())


def states(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, dict[str, tuple[str, str]]]:
    """Exit status, and of every link the state and the text."""
    capsys.readouterr()
    status = cli.main(["trace", "release", "--json", *arguments])
    found = json.loads(capsys.readouterr().out)["links"]
    assert [link["name"] for link in found] == LINKS
    return status, {link["name"]: (link["state"], link["about"]) for link in found}


def test_a_release_whose_data_is_at_hand_is_right_in_every_link(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = states(capsys)
    assert status == 3
    assert {name for name, (state, _) in found.items() if state != "right"} == {"code"}
    assert found["code"][0] == "not compared"
    assert re.match(rf"commit {'ab' * 20}: git said: fatal: .*; run this where git has it", found["code"][1])
    assert "3 shards" in found["shards"][1]
    assert found["source"][1] == "folder: 16 images, every digest as in the index"
    status, found = states(capsys, "--quick")
    assert (status, found["source"][0]) == (3, "skipped")


def test_an_image_is_followed_to_its_shard_and_its_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    key = index.read(INDEX)["key"][0].as_py()
    assert cli.main(["trace", "release", "--image", key, "--json"]) == 3
    row = json.loads(capsys.readouterr().out)["image"]
    assert Path(f"../images/{row['path']}").is_file()
    assert row["shard"] in {each.name for shards in Manifest.read(MANIFEST).splits.values() for each in shards}
    assert cli.main(["trace", "release", "--image", "nobody"]) == 1
    assert "has no such key" in capsys.readouterr().err


def _lock(folder: Path, store: Store) -> None:
    (folder / "dvc.lock").write_text("stages: {shard: {params: {params.yaml: {seed: 2}}}}\n")


def _changed_code(folder: Path, store: Store) -> None:
    (folder / "provenance.json").write_text(json.dumps({"commit": "ab" * 20, "changed": ["alexnet/a.py"]}))


def _index(folder: Path, store: Store) -> None:
    index.write(index.read(INDEX).slice(1), folder / INDEX.name)


def _classes(folder: Path, store: Store) -> None:
    (folder / "config.json").write_text('{"synsets": []}')


def _shard(folder: Path, store: Store) -> None:
    bucket = Bucket(store.bucket, store)
    key = f"{Manifest.read(MANIFEST).prefix}train-000001.tar"
    body = bytearray(bucket.get(key))
    body[700] ^= 1
    bucket.put(key, bytes(body))


def _source(folder: Path, store: Store) -> None:
    path = sorted(Path("../images").rglob("*.jpg"))[3]
    path.write_bytes(path.read_bytes()[:-1] + b"\0")


def _longer(folder: Path, store: Store) -> None:
    path = sorted(Path("../images").rglob("*.jpg"))[3]
    path.write_bytes(path.read_bytes() + b"\0")


@pytest.mark.parametrize(
    ("change", "wrong", "says"),
    [
        (_lock, {"lineage"}, "made from changed data or parameters"),
        (_changed_code, {"code"}, f"made from changed code: {'ab' * 20} with changes in alexnet/a.py"),
        (_index, {"index", "shards", "validation"}, "its images by split and class"),
        (_classes, {"model"}, "its classes are not those"),
        (_shard, {"shards"}, "train-000001.tar: sha256 is"),
        (_source, {"source"}, "1 of 16 images are others now"),
        (_longer, {"source"}, "1 of 16 images are others now"),
    ],
)
def test_what_was_changed_is_named(
    folder: Path,
    fresh_store: Store,
    capsys: pytest.CaptureFixture[str],
    change: Callable[[Path, Store], None],
    wrong: set[str],
    says: str,
) -> None:
    change(folder, fresh_store)
    seal(folder)
    status, found = states(capsys)
    assert status == 1
    assert {name for name, (state, _) in found.items() if state == "wrong"} == wrong
    assert says in "".join(about for _, about in found.values())


def test_what_is_not_at_hand_is_not_compared(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_SOURCE", "nowhere")
    monkeypatch.setenv("ALEXNET_BUCKET", "no-such-bucket")
    for name in ("index.parquet", "provenance.json", "dvc.lock"):
        (folder / name).unlink()
    seal(folder)
    status, found = states(capsys)
    assert status == 3
    assert {name for name, (state, _) in found.items() if state == "right"} == {"release", "model"}
    assert {state for state, _ in found.values()} == {"right", "not compared"}
    for name in ("provenance.json", "dvc.lock", "index.parquet"):
        assert f"the release has no {name}" in "\n".join(about for _, about in found.values())


@pytest.mark.parametrize(("name", "link"), [("config.json", "model"), ("dvc.lock", "lineage"), ("provenance.json", "code")])
def test_a_file_of_any_form_is_a_wrong_or_an_absent_link(
    name: str, link: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A release's files are somebody else's: digests say that they are as published, not what is in them."""

    def check(form: str) -> None:
        _, found = states(capsys, "--quick")
        assert found[link][0] in ("wrong", "not compared"), form
        assert 0 < len(found[link][1]) < 700, form

    for body in (b"", b"null", b"[]", b'{"synsets": 1}', b"[" * 20_000, b"\xff\xfe{\0"):
        (folder / name).write_bytes(body)
        seal(folder)
        check(str(body)[:8])
    (folder / name).unlink()
    os.mkfifo(folder / name)
    check("a named pipe")


@pytest.fixture
def committed(folder: Path) -> Path:
    """The same release, made by the code of a commit that is here."""
    for name in ("alexnet", "pipelines"):
        Path(name).mkdir(exist_ok=True)
        (Path(name) / "a.py").write_text(name)
    for command in (["init", "-q"], ["add", "alexnet", "pipelines"], ["commit", "-qm", "one"]):
        subprocess.run(["git", "-c", "user.name=n", "-c", "user.email=e", *command], check=True)
    commit = subprocess.run(["git", "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    (folder / "provenance.json").write_text(json.dumps({"commit": commit, "changed": []}))
    deps = [{"path": "alexnet/a.py", "md5": hashlib.md5(b"alexnet", usedforsecurity=False).hexdigest()}]
    stages = {"shard": {"deps": deps, "params": {"params.yaml": {"seed": 1}}}}
    (folder / "dvc.lock").write_text(json.dumps({"schema": "2.0", "stages": stages}))
    seal(folder)
    return folder


def test_a_release_that_is_compared_and_equal_ends_with_0(committed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    status, found = states(capsys)
    assert (status, {state for state, _ in found.values()}) == (0, {"right"})
    status, found = states(capsys, "--quick")
    assert (status, {name for name, (state, _) in found.items() if state == "skipped"}) == (0, {"source"})


Lack = Callable[[Path, Bucket, pytest.MonkeyPatch], object]


def _without_commit(folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "provenance.json").write_text(json.dumps({"commit": None, "changed": [], "said": "fatal"}))


def _of_another_commit(folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "provenance.json").write_text(json.dumps({"commit": "ab" * 20, "changed": []}))


def _of_an_option(folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("precious").write_text("precious")
    (folder / "provenance.json").write_text(json.dumps({"commit": "--output=precious", "changed": []}))


def _without_code(folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "dvc.lock").write_text("stages: {shard: {params: {params.yaml: {seed: 1}}}}\n")


def _without_shards(folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in _tars(bucket):
        bucket.delete(key)


def _without_one_shard(folder: Path, bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.delete(_tars(bucket)[0])


def _tars(bucket: Bucket) -> list[str]:
    return [key for key in bucket.sizes(Manifest.read(MANIFEST).prefix) if key.endswith(".tar")]


LACKS: list[tuple[Lack, str, str]] = [
    (lambda folder, bucket, patch: patch.setenv("PATH", "nowhere"), "code", "git said: .*No such file.*; run this where"),
    (_of_another_commit, "code", f"commit {'ab' * 20}: git said: fatal: .*; run this where git has it"),
    (_without_commit, "code", "the release names no commit: unknown; git said: fatal"),
    (_of_an_option, "code", "commit: must be 40 or 64 digits 0-9a-f, got '--output=precious'"),
    (_without_code, "code", "dvc.lock names no code that a stage ran"),
    (_without_shards, "shards", "3 of 3 shards are not at s3://.*; set ALEXNET_BUCKET"),
    (
        _without_one_shard,
        "shards",
        "1 of 3 shards are not at .*; the others: digests, keys and labels as listed; set",
    ),
    (lambda folder, bucket, patch: patch.setenv("ALEXNET_BUCKET", "no-such-bucket"), "shards", "no-such-bucket"),
    (lambda folder, bucket, patch: patch.setenv("ALEXNET_SOURCE", "nowhere"), "source", "nowhere: no such folder; set"),
    (
        lambda folder, bucket, patch: Path("../images/class0/1.jpg").unlink(),
        "source",
        "folder: 1 of 16 images cannot be read: class0/1.jpg is not there; the others are as in the index",
    ),
]


def test_what_could_not_be_compared_is_said_with_the_reason_and_by_the_exit_status(
    committed: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bucket, images = Bucket(fresh_store.bucket, fresh_store), Path("../images")
    tars = {key: bucket.get(key) for key in _tars(bucket)}
    for name, place in (("release", committed), ("images", images)):
        shutil.copytree(place, f"whole/{name}")
    for lack, link, says in LACKS:
        with monkeypatch.context() as patch:
            lack(committed, bucket, patch)
            seal(committed)
            status, found = states(capsys)
        assert (status, found[link][0]) == (3, "not compared"), says
        assert {name for name, (state, _) in found.items() if state != "right"} == {link}
        assert re.search(says, found[link][1]), found[link][1]
        for key in tars.keys() - bucket.sizes("").keys():
            bucket.put(key, tars[key])
        shutil.copytree("whole/release", committed, dirs_exist_ok=True)
        shutil.copytree("whole/images", images, dirs_exist_ok=True)
    assert Path("precious").read_text() == "precious"
    _without_shards(committed, bucket, monkeypatch)
    assert cli.main(["trace", "release"]) == 3
    assert capsys.readouterr().out.endswith("\ncould not be compared: shards\n")
