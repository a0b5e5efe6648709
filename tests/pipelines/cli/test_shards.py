"""Every object of a small run's shards, damaged on a real store one at a time, is found and made again."""

import json
from pathlib import Path

import pytest

from alexnet.shards.manifest import Manifest
from pipelines import shard
from pipelines.cli import main as cli
from pipelines.config import params
from pipelines.runtime.environment import Store
from pipelines.sources.open import open_source
from pipelines.storage.bucket import Bucket
from pipelines.validation import index
from tests.support.damage import DAMAGES, damage
from tests.support.stage_folder import INDEX, MANIFEST, PIXELS, StageFolder, make_image_folder, make_stage_folder


@pytest.fixture
def sharded(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    (tmp_path / "work").mkdir()
    place = make_stage_folder(
        tmp_path / "work", fresh_store, make_image_folder(tmp_path / "images", classes=3, images=8), monkeypatch
    )
    given = params.load()
    index.write(index.complete(index.scan(open_source(given.source), given.validate), given.validate, 0.25), INDEX)
    shard.main(INDEX, MANIFEST, PIXELS)
    return place


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    capsys.readouterr()
    status = cli.main(["shards", *arguments])
    return status, *capsys.readouterr()


@pytest.mark.slow
def test_every_damaged_object_is_found_and_made_again(
    sharded: StageFolder, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = Manifest.read(MANIFEST).prefix
    whole = {key: bucket.get(key) for key in bucket.sizes(prefix)}
    kinds = {key.removeprefix(prefix).partition(".")[2] for key in whole}
    assert kinds == {"tar", "json", "npz"}
    assert len(whole) == 11  # 3 tars, 3 side files, 2 sums, the manifest, 2 indexes
    assert run(capsys, "--verify")[0] == 0
    for key, body in whole.items():
        for name, change in DAMAGES.items():
            damage(bucket, key, change(body))
            status, _, err = run(capsys, "--verify")
            assert (status, key in err or key.replace(".npz", ".json") in err) == (1, True), (key, name)
            status, out, _ = run(capsys, "--verify", "--repair", "--json")
            assert (status, bucket.get(key)) == (0, body), (key, name)
            assert [each["mended"] for each in json.loads(out)["damaged"]] == [True]
    assert {key: bucket.get(key) for key in bucket.sizes(prefix)} == whole


def test_a_changed_source_or_recipe_makes_nothing_again(
    sharded: StageFolder, bucket: Bucket, capsys: pytest.CaptureFixture[str]
) -> None:
    key = f"{Manifest.read(MANIFEST).prefix}val-000000.tar"
    bucket.put(key, b"damaged")
    status, out, err = run(capsys, "--verify")
    assert (status, err.startswith(f"{key}: has 7 bytes, the manifest says ")) == (1, True)
    assert "1 objects damaged; `alexnet shards --verify --repair` makes them again" in out
    sharded.params(shard={"jpeg_quality": 50})
    status, _, err = run(capsys, "--repair")
    assert (status, "go back to what made them, or `make run` for new ones" in err) == (1, True)
    assert bucket.get(key) == b"damaged"


def test_addresses_of_a_split(sharded: StageFolder, bucket: Bucket, capsys: pytest.CaptureFixture[str]) -> None:
    prefix = Manifest.read(MANIFEST).prefix
    expected = [f"{bucket}/{prefix}train-{number:06}.tar" for number in range(2)]
    assert run(capsys, "--urls", "train")[1].splitlines() == expected
    assert run(capsys, "--urls", "test")[::2] == (
        1,
        f"alexnet shards: error: {MANIFEST}: has no split 'test'; it has train, val\n",
    )
    assert f"3 shards, 0.1 MB, at {bucket}/{prefix}" in run(capsys)[1]
