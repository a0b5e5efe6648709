"""A copy of the code with small parameters, sixteen pictures and buckets of its own, in which a test runs DVC."""

import dataclasses
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from dvc.utils.serialize import dump_yaml
from ruamel.yaml import YAML

from infra.stack import Stack
from pipelines.runtime.environment import Store
from tests.support.stage_folder import environment, make_image_folder

ROOT = Path(__file__).parents[2]
SMALL: dict[str, Any] = {
    "source": {"name": "folder"},
    "shard": {"train_shards": 2, "val_shards": 1},
    "model": {"classes": 2, "kernels": [4, 8, 8, 8, 4], "units": 16},
    "train": {"batch_size": 4, "epochs": 2},
    "publish": {"exports": [], "must_beat_baselines": False},
}


@dataclasses.dataclass(frozen=True)
class Checkout:
    """A copy of the code with small parameters, a source and a store of its own."""

    root: Path
    env: dict[str, str]
    store: Store

    @property
    def source(self) -> Path:
        """The folder of pictures."""
        return self.root / "pictures"

    def change(self, section: str, **leaves: Any) -> None:
        """Changes values of a section of params.yaml, which is then as DVC's own writer has it."""
        yaml = YAML(typ="safe", pure=True)  # one that keeps comments may write another tree where a list has changed
        tree = yaml.load(self.root / "params.yaml")
        tree[section].update(leaves)
        dump_yaml(self.root / "params.yaml", tree)

    def repro(self, *arguments: str, **env: str) -> "subprocess.CompletedProcess[str]":
        """Runs `dvc repro`; its stdout has both streams."""
        command = [sys.executable, "-m", "dvc", "repro", *arguments]
        return subprocess.run(
            command, cwd=self.root, env=self.env | env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )

    def summary(self, since: str) -> str:
        """What `make run` prints at its end."""
        command = [sys.executable, "-m", "pipelines.cli.summary", "--since", since]
        return subprocess.run(command, cwd=self.root, env=self.env, capture_output=True, text=True, check=True).stdout

    def start(self) -> "subprocess.Popen[bytes]":
        """Starts `dvc repro` in a process group of its own."""
        null = subprocess.DEVNULL
        command = [sys.executable, "-m", "dvc", "repro"]
        return subprocess.Popen(command, cwd=self.root, env=self.env, stdout=null, stderr=null, start_new_session=True)

    def digests(self) -> dict[str, str]:
        """SHA-256 of every output by its path; the manifest stands for the shards.

        Without the source's listing, which is of the times and inodes of this checkout's files.
        """
        files = sorted(path for path in (self.root / "artifacts").rglob("*") if path.is_file())
        skipped = (".gitignore", "listing.json")
        return {
            str(path.relative_to(self.root)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in files
            if path.name not in skipped
        }


def stages_run(output: str) -> list[str]:
    """The stages that DVC ran, from its output."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def make_checkout(root: Path, stack: Stack, store: Store, name: str) -> Checkout:
    """A checkout with buckets named after it."""
    own = dataclasses.replace(store, bucket=f"{name}-data", registry=f"{name}-registry")
    for bucket in (own.bucket, own.registry):
        stack.admin().create_bucket(Bucket=bucket)
    for package in ("alexnet", "pipelines", "infra"):
        shutil.copytree(ROOT / package, root / package, ignore=shutil.ignore_patterns("__pycache__"))
    (root / ".dvc" / "plots").mkdir(parents=True)
    (root / "docs").mkdir()
    files = (
        ".dvc/config",
        ".dvc/.gitignore",
        ".dvc/plots/page.html",
        ".dvcignore",
        ".gitignore",
        "docs/story.html",
        "dvc.yaml",
        "params.yaml",
        "pyproject.toml",
    )
    for file in files:
        shutil.copy(ROOT / file, root / file)
    subprocess.run(["git", "init", "-q"], cwd=root, check=True)
    source = make_image_folder(root / "pictures", classes=2, images=8)
    env = (
        os.environ
        | environment(own, source)
        | {"OMP_NUM_THREADS": "1", "PYTHONPATH": "", "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    )
    checkout = Checkout(root, env, own)
    for section, leaves in SMALL.items():
        checkout.change(section, **leaves)
    subprocess.run(["git", "add", "-A"], cwd=root, check=True)
    date = {"GIT_AUTHOR_DATE": "2012-12-03T00:00Z", "GIT_COMMITTER_DATE": "2012-12-03T00:00Z"}  # a release names the commit
    commit = ["git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "all"]
    subprocess.run(commit, cwd=root, env=os.environ | date, check=True)
    return checkout
