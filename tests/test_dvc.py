"""DVC as its users use it, on a real repository with a finished run: experiments, the queue, remotes, artifacts, plots."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from infra.stack import Stack
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support.checkout import ROOT, Checkout, make_checkout, stages_run

pytestmark = pytest.mark.slow


def dvc(checkout: Checkout, *arguments: str, cwd: Path | None = None, env: Mapping[str, str] = MappingProxyType({})) -> str:
    """What a command of DVC's printed, both streams. Fails unless it succeeds."""
    return _call(checkout, sys.executable, "-m", "dvc", *arguments, cwd=cwd, env=env)


def git(checkout: Checkout, *arguments: str, cwd: Path | None = None) -> str:
    return _call(checkout, "git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments, cwd=cwd)


def _call(checkout: Checkout, *command: str, cwd: Path | None = None, env: Mapping[str, str] = MappingProxyType({})) -> str:
    done = subprocess.run(
        command,
        cwd=cwd or checkout.root,
        env={**checkout.env, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    return done.stdout


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory, stack: Stack, store: Store) -> Checkout:
    """A committed checkout with a finished run, whose stages find the store as by `make up`, and the source beside the code."""
    made = make_checkout(tmp_path_factory.mktemp("dvc"), stack, store, "dvc")
    places = made.root / ".local" / "stack" / "places.json"
    places.parent.mkdir(parents=True)
    places.write_text(json.dumps(dataclasses.asdict(made.store)))
    names = ("ALEXNET_BUCKET", "ALEXNET_REGISTRY", "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    env = {name: value for name, value in made.env.items() if name not in names} | {"ALEXNET_SOURCE": "pictures"}
    made = dataclasses.replace(made, env=env)
    (made.root / ".gitignore").write_text((made.root / ".gitignore").read_text() + "/pictures/\n")
    dvc(made, "repro")
    git(made, "add", "-A")
    git(made, "commit", "-qm", "A finished run")
    return made


def registry(checkout: Checkout) -> dict[str, bytes]:
    """Everything in the registry."""
    bucket = Bucket(checkout.store.registry, checkout.store)
    return {key: bucket.get(key) for key in bucket.sizes("")}


def receipt(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "artifacts/receipt.json").read_text()))


def test_plots_name_their_axes_and_count_epochs_from_one(checkout: Checkout) -> None:
    """And the page says what it lacks without a network, where Vega does not load."""
    dvc(checkout, "plots", "show")
    page = (checkout.root / "dvc_plots" / "index.html").read_text()
    specs = [json.loads(spec) for spec in re.findall(r"var spec = ({.*?});\s*vegaEmbed", page, re.DOTALL)]
    titles = {spec["title"]["text"] if isinstance(spec["title"], dict) else spec["title"]: spec for spec in specs}
    loss, error = titles["Loss"], titles["Error beside two baselines, as a fraction of the images"]
    assert (loss["encoding"]["x"]["title"], loss["layer"][0]["encoding"]["y"]["title"]) == ("epoch", "loss in nats")
    assert {int(row["epoch"]) for row in loss["data"]["values"]} == {1, 2}
    assert {"ridge", "majority", "val_top1_error"} <= {row["field"] for row in error["data"]["values"]}
    matrix = titles["Confusions, images"]["spec"]["encoding"]
    assert {axis: (matrix[axis]["field"], matrix[axis]["title"]) for axis in "xy"} == {
        "x": ("predicted", "predicted class"),
        "y": ("actual", "true class"),
    }
    assert "there is no network" in page
    assert len(list((checkout.root / "dvc_plots" / "static").glob("*.png"))) == 3
    assert git(checkout, "status", "--porcelain") == ""


def test_a_second_machine_goes_on_from_the_first(checkout: Checkout, tmp_path: Path) -> None:
    env = {"ALEXNET_BUCKET": checkout.store.bucket, "AWS_ENDPOINT_URL": checkout.store.endpoint or ""}
    keys = {"AWS_ACCESS_KEY_ID": checkout.store.access_key or "", "AWS_SECRET_ACCESS_KEY": checkout.store.secret_key or ""}
    _call(checkout, sys.executable, "-m", "infra.remote", env=env)
    dvc(checkout, "push", "--run-cache", env=keys)
    git(checkout, "tag", "-a", "alexnet@v0.1.0", "-m", "A release")
    second = tmp_path / "second"
    git(checkout, "clone", "-q", str(checkout.root), str(second))
    _call(checkout, sys.executable, "-m", "infra.remote", cwd=second, env=env)
    dvc(checkout, "pull", "--run-cache", cwd=second, env=keys)
    assert dvc(checkout, "status", cwd=second).split() == ["fetch:", "always", "changed"]
    source = {"ALEXNET_SOURCE": str(checkout.source), "ALEXNET_REGISTRY": checkout.store.registry}
    assert stages_run(dvc(checkout, "repro", cwd=second, env=env | keys | source)) == ["fetch"]
    got = tmp_path / "got"
    dvc(checkout, "artifacts", "get", str(checkout.root), "alexnet", "-o", str(got), env=keys)
    weights = (checkout.root / "artifacts" / "model" / "model.safetensors").read_bytes()
    assert (got / "model.safetensors").read_bytes() == weights
    for folder in (checkout.root, second):
        assert str(keys["AWS_SECRET_ACCESS_KEY"]) not in (folder / ".dvc" / "config.local").read_text()
        assert git(checkout, "status", "--porcelain", cwd=folder) == ""


def test_an_experiment_publishes_nothing_until_it_is_applied(checkout: Checkout) -> None:
    """In the workspace, in a temporary folder and from the queue; `-S` changes one line of params.yaml."""
    before, first = registry(checkout), receipt(checkout.root)
    assert first["version"]
    said = dvc(checkout, "exp", "run", "-n", "shorter", "-S", "train.epochs=1")
    assert stages_run(said) == ["fetch", "train", "evaluate", "probe", "extract", "publish"]
    assert git(checkout, "diff", "--numstat", "--", "params.yaml").split()[:2] == ["1", "1"]
    assert receipt(checkout.root)["version"] is None
    git(checkout, "checkout", "-q", ".")
    dvc(checkout, "exp", "run", "-n", "longer", "--temp", "-S", "train.epochs=3")
    dvc(checkout, "exp", "run", "-n", "heavier", "--queue", "-S", "train.momentum=0.5")
    dvc(checkout, "queue", "start")
    deadline = time.monotonic() + 600
    while "Success" not in (status := dvc(checkout, "queue", "status")):
        assert "Failed" not in status, dvc(checkout, "queue", "logs", "heavier")
        assert time.monotonic() < deadline, status
        time.sleep(2)
    dvc(checkout, "queue", "stop")
    assert registry(checkout) == before

    (command,) = re.findall(r"^\t@\$\(PY\) -m dvc (exp show .*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    table = dvc(checkout, *shlex.split(command.replace("$$", "$")), "--csv")
    header, *rows = (line.split(",") for line in table.splitlines() if "," in line)
    assert {"train.epochs", "train.momentum", "center_crop.top1_error"} <= set(header)
    assert len(header) < 24
    assert not [name for name in header if "/" in name]
    assert {"shorter", "longer", "heavier"} <= {cell for row in rows for cell in row}

    dvc(checkout, "exp", "apply", "longer")
    dvc(checkout, "repro")
    assert receipt(checkout.root)["version"] not in (None, first["version"])
    assert len(registry(checkout)) > len(before)
    git(checkout, "checkout", "-q", ".")
    dvc(checkout, "repro")
    names_commit = {"provenance.json", "README.md", "index.html", "SHA256SUMS"}
    again = receipt(checkout.root)["files"]
    assert {name for name in again if again[name] != first["files"][name]} == names_commit
