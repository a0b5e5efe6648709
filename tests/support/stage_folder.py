"""A folder to run stages in: params.yaml with changes, a store of its own, and small sources."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipelines.cli import make_ilsvrc
from pipelines.cli.pictures import jpeg
from pipelines.runtime.environment import Store

PARAMS = Path(__file__).parents[2] / "params.yaml"
INDEX, REPORT = Path("artifacts/index.parquet"), Path("artifacts/validation.json")
MANIFEST, PIXELS = Path("artifacts/manifest.json"), Path("artifacts/pixels.npz")


@dataclass(frozen=True)
class StageFolder:
    """A folder with params.yaml, which is the working directory of a test."""

    root: Path

    def params(self, **sections: dict[str, Any]) -> None:
        """Writes params.yaml: the shipped one with the source `folder`, small shards and these changes."""
        yaml = YAML(typ="safe", pure=True)
        tree = yaml.load(PARAMS)
        small: dict[str, dict[str, Any]] = {
            "source": {"name": "folder"},
            "shard": {"side_px": 32, "train_shards": 2, "val_shards": 1},
        }
        for changes in (small, sections):
            for section, change in changes.items():
                for name, value in change.items():
                    old = tree[section][name]
                    tree[section][name] = old | value if isinstance(value, dict) and isinstance(old, dict) else value
        yaml.dump(tree, self.root / "params.yaml")


def make_stage_folder(root: Path, store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> StageFolder:
    """Changes into `root` for the rest of the test, with the environment of the store and the source."""
    monkeypatch.chdir(root)
    for name, value in environment(store, source).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ALEXNET_WORKERS", "2")
    stage_folder = StageFolder(root)
    stage_folder.params()
    return stage_folder


def environment(store: Store, source: Path) -> dict[str, str]:
    """The environment variables by which a stage reaches the store and the source."""
    return {
        "ALEXNET_BUCKET": store.bucket,
        "ALEXNET_REGISTRY": store.registry,
        "ALEXNET_SOURCE": str(source),
        "AWS_ENDPOINT_URL": store.endpoint or "",
        "AWS_ACCESS_KEY_ID": store.access_key or "",
        "AWS_SECRET_ACCESS_KEY": store.secret_key or "",
        "AWS_REGION": store.region or "us-east-1",
        "PYTHONPATH": os.pathsep.join([str(PARAMS.parent), os.environ.get("PYTHONPATH", "")]),
    }


def make_image_folder(root: Path, classes: int = 2, images: int = 8) -> Path:
    """CLASS/IMAGE.jpg, every image another."""
    for label in range(classes):
        (root / f"class{label}").mkdir(parents=True)
        for number in range(images):
            (root / f"class{label}" / f"{number}.jpg").write_bytes(jpeg(label * images + number))
    return root


def make_small_ilsvrc(root: Path, **changes: Any) -> make_ilsvrc.Contents:
    """ILSVRC's archives of three synsets, four training and two validation images each, with changes to that recipe."""
    small: dict[str, Any] = {"synsets": 3, "images": 4, "val_images": 2, "size": (64, 48)}
    return make_ilsvrc.make(root, make_ilsvrc.Recipe(**small | changes))
