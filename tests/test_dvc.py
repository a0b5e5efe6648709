"""DVC as its users use it, on a real repository with a finished run: experiments, the queue, remotes, artifacts, plots."""

import dataclasses
import json
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra.stack import Stack
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support.checkout import ROOT, Checkout, make_checkout, stages_run

pytestmark = pytest.mark.slow


def dvc(checkout: Checkout, *arguments: str, cwd: Path | None = None, **env: str) -> str:
    """What a command of DVC's printed, both streams. Fails unless it succeeds."""
    return _call(checkout, sys.executable, "-m", "dvc", *arguments, cwd=cwd, **env)


def git(checkout: Checkout, *arguments: str, cwd: Path | None = None) -> str:
    return _call(checkout, "git", "-c", "user.name=a", "-c", "user.email=a@b.c", *arguments, cwd=cwd)


def _call(checkout: Checkout, *command: str, cwd: Path | None = None, **env: str) -> str:
    done = subprocess.run(
        command, cwd=cwd or checkout.root, env=checkout.env | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
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
    (made.root / ".gitignore").write_text((made.root / ".gitignore").read_text() + "pictures/\n")
    dvc(made, "repro")
    git(made, "add", "-A")
    git(made, "commit", "-qm", "A finished run")
    return made


def registry(checkout: Checkout) -> dict[str, bytes]:
    """Everything in the registry."""
    bucket = Bucket(checkout.store.registry, checkout.store)
    return {key: bucket.get(key) for key in bucket.sizes("")}


def receipt(folder: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads((folder / "artifacts/receipt.json").read_text())
    return found


def test_an_experiment_publishes_nothing_until_it_is_applied(checkout: Checkout) -> None:
    """In the workspace, in a temporary folder and from the queue; `-S` changes one line of params.yaml."""
    before, first = registry(checkout), receipt(checkout.root)["version"]
    assert first
    said = dvc(checkout, "exp", "run", "-n", "shorter", "-S", "train.epochs=1")
    assert stages_run(said) == ["fetch", "train", "evaluate", "extract", "publish"]
    assert git(checkout, "diff", "--numstat", "--", "params.yaml").split()[:2] == ["1", "1"]
    assert receipt(checkout.root)["version"] is None
    git(checkout, "checkout", "-q", ".")
    dvc(checkout, "exp", "run", "-n", "longer", "--temp", "-S", "train.epochs=3")
    dvc(checkout, "exp", "run", "-n", "heavier", "--queue", "-S", "train.momentum=0.5")
    dvc(checkout, "queue", "start")
    deadline = time.monotonic() + 300
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
    assert receipt(checkout.root)["version"] not in (None, first)
    assert len(registry(checkout)) > len(before)
    git(checkout, "checkout", "-q", ".")
    dvc(checkout, "repro")
    assert receipt(checkout.root)["version"] == first
