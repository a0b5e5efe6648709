"""The whole pipeline on a few small images: by DVC, against a real store, with kills, faults and full disks."""

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import webdataset as wds
from ruamel.yaml import YAML
from safetensors.torch import load_file

from alexnet.shards.manifest import Manifest
from infra.stack import Stack
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support import dask
from tests.support.checkout import Checkout, make_checkout, stages_run
from tests.support.fault_proxy import Fault, FaultProxy, Request

ROOT = Path(__file__).parents[1]
STAGES = ("fetch", "validate", "shard", "train", "evaluate", "probe", "extract", "publish")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, stack: Stack, store: Store) -> Checkout:
    """A checkout in which all stages have run."""
    finished = make_checkout(tmp_path_factory.mktemp("finished"), stack, store, "whole")
    done = finished.repro()
    assert done.returncode == 0, done.stdout[-3000:]
    assert stages_run(done.stdout) == list(STAGES)
    return finished


@pytest.fixture
def fresh(tmp_path: Path, stack: Stack, store: Store) -> Checkout:
    """A checkout in which no stage has run."""
    return make_checkout(tmp_path, stack, store, f"fresh-{time.monotonic_ns()}")


def test_a_run_ends_with_a_published_model(finished: Checkout) -> None:
    receipt = json.loads((finished.root / "artifacts/receipt.json").read_text())
    registry = Bucket(finished.store.registry, finished.store)
    published = registry.sizes(f"alexnet/versions/{receipt['version']}/")
    assert {key.split("/", 3)[3] for key in published} >= {"model.safetensors", "manifest.json"}
    assert json.loads(registry.get("alexnet/aliases/latest.json"))["version"] == receipt["version"]
    metrics = json.loads((finished.root / "artifacts/metrics.json").read_text())
    assert 0 <= metrics["center_crop"]["top5_error"] <= metrics["center_crop"]["top1_error"] <= 1


def test_a_release_is_traced_to_its_commit_and_its_images(finished: Checkout) -> None:
    command = [sys.executable, "-m", "pipelines.cli.main", "trace", "--json"]
    traced = subprocess.run(command, cwd=finished.root, env=finished.env, capture_output=True, text=True)
    links = {link["name"]: link["state"] for link in json.loads(traced.stdout)["links"]}
    assert (traced.returncode, set(links.values())) == (0, {"right"}), traced.stdout


def test_the_summary_reports_the_results(finished: Checkout) -> None:
    text = finished.summary(since="dvc.yaml")
    receipt = json.loads((finished.root / "artifacts/receipt.json").read_text())
    assert f"published   alexnet@{receipt['version']}" in text
    assert f"s3://{finished.store.registry}/alexnet/versions/{receipt['version']}" in text
    assert "baseline: ridge" in text
    assert "figures     artifacts/evaluation/" in text
    took = text.partition("\nran         ")[2].strip()
    assert re.sub(r" \d+ (s|min)", "", took) == "validate, shard, train, evaluate, probe, extract, publish"


def test_a_second_run_does_nothing_and_a_changed_parameter_only_what_depends_on_it(finished: Checkout) -> None:
    (finished.root / "started").touch()
    assert stages_run(finished.repro().stdout) == ["fetch"]
    assert finished.summary(since="started").endswith("nothing to do: nothing has changed since the last run\n")
    finished.change("publish", alias="staging")
    assert stages_run(finished.repro().stdout) == ["fetch", "publish"]
    finished.change("publish", alias="latest")
    assert stages_run(finished.repro().stdout) in (["fetch"], ["fetch", "publish"])


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (lambda checkout: shutil.rmtree(checkout.source), "pictures"),
        (lambda checkout: checkout.change("train", bach_size=4), r"train: unknown bach_size; allowed: .*batch_size"),
    ],
    ids=["missing source", "misspelt key"],
)
def test_the_first_stage_reports_what_is_wrong(fresh: Checkout, breaks: Callable[[Checkout], None], message: str) -> None:
    breaks(fresh)
    failed = fresh.repro("fetch")
    assert failed.returncode != 0
    _assert_one_error(failed.stdout, "fetch", message)
    assert not (fresh.root / "artifacts/source.json").exists()


@pytest.mark.slow
def test_the_same_images_in_webdataset_tars_give_the_same_network(finished: Checkout, fresh: Checkout, tmp_path: Path) -> None:
    """Stock webdataset writes them in another order, in tars of its own, to a bucket; the keys and the classes are kept."""
    images = pq.read_table(finished.root / "artifacts/index.parquet").to_pylist()
    (tmp_path / "tars").mkdir()
    with wds.ShardWriter(str(tmp_path / "tars/pictures-%06d.tar"), maxcount=5, verbose=0) as sink:
        for image in reversed(images):
            data = (finished.source / image["path"]).read_bytes()
            sink.write({"__key__": image["key"], "jpg": data, "cls": image["wnid"].encode()})
    bucket = Bucket(fresh.store.bucket, fresh.store)
    for tar in (tmp_path / "tars").iterdir():
        bucket.upload(tar, f"given/{tar.name}")
    fresh.change("source", name="webdataset")
    done = fresh.repro(ALEXNET_SOURCE=f"s3://{fresh.store.bucket}/given")
    assert (done.returncode, stages_run(done.stdout)) == (0, list(STAGES)), done.stdout[-3000:]
    given, made = (Manifest.read(each.root / "artifacts/manifest.json") for each in (finished, fresh))
    assert (made.source, made.prefix, made.splits, made.synsets) == ("webdataset", given.prefix, given.splits, given.synsets)
    expected, found = finished.digests(), fresh.digests()
    for name in ("pixels.npz", "model/model.safetensors", "history.csv", "metrics.json", "features.parquet"):
        assert found[f"artifacts/{name}"] == expected[f"artifacts/{name}"], name


def _damage(text: bytes) -> Callable[[Checkout], None]:
    def damage(checkout: Checkout) -> None:
        victim = min(checkout.source.rglob("*.jpg"))
        victim.write_bytes(text or victim.read_bytes()[:-200])

    return damage


@pytest.mark.slow
@pytest.mark.parametrize(
    ("breaks", "stage", "message"),
    [
        (
            lambda checkout: (next(p for p in checkout.source.rglob("*") if p.is_dir()).parent / "empty").mkdir(),
            "fetch",
            "empty",
        ),
        (_damage(b"not an image at all"), "validate", r"not_an_image"),
        (_damage(b""), "validate", r"truncated"),
    ],
    ids=["empty class", "text named jpg", "truncated"],
)
def test_a_broken_source_is_reported(fresh: Checkout, breaks: Callable[[Checkout], None], stage: str, message: str) -> None:
    breaks(fresh)
    failed = fresh.repro()
    assert failed.returncode != 0
    _assert_one_error(failed.stdout, stage, message)
    assert not (fresh.root / "artifacts/index.parquet").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"ALEXNET_BUCKET": ""}, r"no bucket: ALEXNET_BUCKET is not set and no local stack runs"),
        ({"ALEXNET_BUCKET": "no-such-bucket"}, r"s3://no-such-bucket.*NoSuchBucket.*ALEXNET_BUCKET"),
        ({"AWS_SECRET_ACCESS_KEY": "0" * 40}, r"SignatureDoesNotMatch.*check AWS_SECRET_ACCESS_KEY"),
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}, r"127\.0\.0\.1:9"),
    ],
    ids=["no bucket", "missing bucket", "wrong secret", "no store there"],
)
def test_a_store_that_cannot_be_used_is_reported(finished: Checkout, tmp_path: Path, env: dict[str, str], message: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root)
    (root / "dvc.lock").unlink()
    copy = dataclasses.replace(finished, root=root)
    before = copy.digests()
    failed = copy.repro("--single-item", "shard", "--force", **env)
    assert failed.returncode != 0
    _assert_one_error(failed.stdout, "shard", message)
    assert "Traceback" not in failed.stdout
    after = copy.digests()
    assert "artifacts/manifest.json" not in after or after == before


@pytest.mark.slow
def test_changed_data_is_trained_on_compared_with_the_release_before_and_with_the_champion(fresh: Checkout) -> None:
    """Then a network that is worse is published and not champion, and one restored by DVC is published, not remembered."""

    def receipt() -> dict[str, Any]:
        return dict(json.loads((fresh.root / "artifacts/receipt.json").read_text()))

    assert fresh.repro().returncode == 0
    first = receipt()
    assert first["champion"] == {
        "is_champion": True,
        "reason": "it is the first that passes the gate",
        "compared_with": None,
        "comparison": None,
    }
    for path in sorted(fresh.source.glob("class0/*.jpg"))[:4]:
        path.unlink()
    done = fresh.repro()
    assert stages_run(done.stdout) == list(STAGES), done.stdout[-3000:]
    second = receipt()
    assert second["version"] != first["version"]
    assert second["champion"]["compared_with"] == first["version"]
    images = json.loads((fresh.root / "artifacts/manifest.json").read_text())["splits"]["val"]
    assert second["champion"]["comparison"]["paired"]["images"] == sum(shard["samples"] for shard in images)
    page = (fresh.root / ".local/outcome.html").read_text()
    assert "<td>0 new, 4 gone</td>" in page
    fresh.change("publish", must_beat_baselines=True, max_top1_error=0.0)
    held = fresh.repro()
    assert stages_run(held.stdout) == ["fetch", "publish"]
    if receipt()["held_back"]:
        assert receipt()["champion"] is None
    fresh.change("publish", must_beat_baselines=False, max_top1_error=None)
    assert stages_run(fresh.repro().stdout) == ["fetch", "publish"]  # what it says has to be done, not restored
    assert receipt()["version"] == second["version"]


@pytest.mark.slow
def test_two_runs_from_scratch_are_byte_equal(finished: Checkout, fresh: Checkout) -> None:
    done = fresh.repro()
    assert done.returncode == 0, done.stdout[-3000:]
    assert fresh.digests() == finished.digests()


@pytest.mark.slow
def test_workers_of_dask_that_were_started_elsewhere_make_the_same_bytes(
    finished: Checkout, fresh: Checkout, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """One of them and its nanny are killed when the shard stage starts."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    with (
        dask.scheduler(elsewhere) as (_, address),
        dask.worker(address, elsewhere, fresh.env),
        dask.worker(address, elsewhere, fresh.env) as victim,
    ):
        assert (done := fresh.repro("validate", ALEXNET_DASK=address)).returncode == 0, done.stdout[-3000:]
        for process in [psutil.Process(victim.pid), *psutil.Process(victim.pid).children(recursive=True)]:
            process.kill()
        assert (done := fresh.repro("shard", ALEXNET_DASK=address)).returncode == 0, done.stdout[-3000:]
    made = fresh.digests()
    assert "artifacts/manifest.json" in made
    assert made.items() <= finished.digests().items()


@pytest.mark.slow
def test_a_source_in_a_bucket_with_splits_of_its_own_is_published_too(fresh: Checkout) -> None:
    bucket = Bucket(fresh.store.bucket, fresh.store)
    for number, path in enumerate(sorted(fresh.source.rglob("*.jpg"))):
        split = "val" if number % 4 == 3 else "train"
        bucket.upload(path, f"raw/{split}/{path.parent.name}/{path.name}")
    shutil.rmtree(fresh.source)
    done = fresh.repro(ALEXNET_SOURCE=f"s3://{bucket.name}/raw")
    assert done.returncode == 0, done.stdout[-3000:]
    assert stages_run(done.stdout) == list(STAGES)
    manifest = json.loads((fresh.root / "artifacts/manifest.json").read_text())
    counts = {split: sum(shard["samples"] for shard in manifest["splits"][split]) for split in ("train", "val")}
    assert counts == {"train": 12, "val": 4}
    receipt = json.loads((fresh.root / "artifacts/receipt.json").read_text())
    assert Bucket(fresh.store.registry, fresh.store).sizes(f"alexnet/versions/{receipt['version']}/")


@pytest.mark.slow
def test_a_run_over_two_processes_publishes_the_model_of_one_up_to_rounding(finished: Checkout, fresh: Checkout) -> None:
    """Towers add in another order than grouped convolutions, in float32; what is not trained is byte-equal."""
    done = fresh.repro(ALEXNET_DEVICES="cpu,cpu")
    assert done.returncode == 0, done.stdout[-3000:]
    assert "train: process-a-tower: 2 processes, a tower each" in done.stdout
    one, two = (load_file(each.root / "artifacts/model/model.safetensors") for each in (finished, fresh))
    assert one.keys() == two.keys()
    for name, tensor in one.items():
        assert (two[name] - tensor).abs().max() <= 1e-4 * tensor.abs().max(), name
    metrics, receipts = (
        [json.loads((each.root / f"artifacts/{name}.json").read_text()) for each in (finished, fresh)]
        for name in ("metrics", "receipt")
    )
    for protocol in ("center_crop", "many_crops"):
        assert metrics[1][protocol] == pytest.approx(metrics[0][protocol], abs=0.01)
    assert metrics[1]["baselines"] == metrics[0]["baselines"]
    assert receipts[1]["files"].keys() == receipts[0]["files"].keys()
    before, after = finished.digests(), fresh.digests()
    for path in ("artifacts/index.parquet", "artifacts/manifest.json", "artifacts/pixels.npz"):
        assert before[path] == after[path]


@pytest.mark.slow
@pytest.mark.parametrize("stage", STAGES)
def test_a_kill_in_any_stage_does_not_change_the_outputs(finished: Checkout, fresh: Checkout, stage: str) -> None:
    run = fresh.start()
    try:
        victim = _await_stage(run.pid, stage)
        time.sleep(0.2 if stage == "fetch" else 1.0)  # fetch is over in a second
        for member in [*victim.children(recursive=True), victim]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
        assert run.wait(timeout=60) != 0
    finally:
        with suppress(ProcessLookupError):
            os.killpg(run.pid, signal.SIGKILL)
    done = fresh.repro()
    assert done.returncode == 0, done.stdout[-3000:]
    assert fresh.digests() == finished.digests()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["train", "evaluate"])
def test_a_store_that_is_away_for_65_seconds_changes_nothing(finished: Checkout, tmp_path: Path, stage: str) -> None:
    """From the second shard that the stage fetches on."""
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root, ignore=shutil.ignore_patterns("cache", ".local"))
    proxy, began = FaultProxy(finished.store.endpoint or ""), math.inf

    def away(request: Request) -> Fault | None:
        nonlocal began
        if request.path.endswith(".tar") and proxy.count("GET", ".tar") == 2:
            began = time.monotonic()
        return Fault(status=503, code="ServiceUnavailable") if 0 <= time.monotonic() - began < 65 else None

    proxy.faults = away
    copy = dataclasses.replace(finished, root=root)
    env = {"ALEXNET_STORE_MINUTES": "10", "AWS_ENDPOINT_URL": proxy.endpoint}
    done = copy.repro("--single-item", "--force", stage, **env)
    proxy.close()
    assert done.returncode == 0, done.stdout[-3000:]
    assert time.monotonic() - began >= 65
    assert f"waits for s3://{finished.store.bucket} at http://127.0.0.1:" in done.stdout
    assert copy.digests() == finished.digests()


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["validate", "shard", "train", "extract"])
def test_a_full_disk_is_reported_and_leaves_no_partial_output(finished: Checkout, tmp_path: Path, stage: str) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished.root, root)
    copy = dataclasses.replace(finished, root=root)
    outs = [root / str(out) for out in YAML(typ="safe").load(root / "dvc.yaml")["stages"][stage]["outs"]]
    for out in outs:  # DVC deletes them too before the stage starts, which would free space
        shutil.rmtree(out) if out.is_dir() else out.unlink()
    with _full_disk(root / "artifacts"):
        failed = copy.repro("--single-item", "--force", stage)
        assert failed.returncode != 0
        _assert_one_error(failed.stdout, stage, "No space left on device; free some space and run again")
        assert "Traceback" not in failed.stdout
        assert [out for out in outs if out.exists()] == []


@contextmanager
def _full_disk(folder: Path) -> Iterator[None]:
    """Mounts a full file system with the folder's content in its place."""
    aside = folder.with_name("aside")
    folder.rename(aside)
    folder.mkdir()
    size = sum(path.stat().st_size + 4096 for path in aside.rglob("*")) + 65536
    if os.geteuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False).returncode:
        pytest.skip("needs the right to mount a tmpfs")
    try:
        shutil.copytree(aside, folder, dirs_exist_ok=True)
        with suppress(OSError), (folder / "ballast").open("wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _await_stage(dvc: int, stage: str) -> psutil.Process:
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        with suppress(psutil.NoSuchProcess):
            for child in psutil.Process(dvc).children(recursive=True):
                with suppress(psutil.NoSuchProcess):
                    if f"pipelines.{stage}" in child.cmdline():
                        return child
        time.sleep(0.02)
    raise AssertionError(f"{stage} did not start")


def _assert_one_error(output: str, stage: str, message: str) -> None:
    """Asserts that the output has one error of the stage, and that it matches."""
    errors = re.findall(rf"^{stage}: error: .*(?:\n(?!ERROR: ).*)*", output, re.MULTILINE)
    assert len(errors) == 1, output[-3000:]
    assert re.search(message, errors[0]), errors[0]
