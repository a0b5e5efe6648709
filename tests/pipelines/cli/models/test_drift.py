"""The present data beside a release's, as a user compares them."""

import json
import shutil
from pathlib import Path

import pytest

from pipelines.cli import main as cli
from pipelines.registry.release import Release
from pipelines.registry.store import Registry
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.pipelines.validation.test_drift import make
from tests.support.trained_folder import TrainedFolder


def test_the_data_of_a_release_is_compared_with_the_present_one(
    shop: TrainedFolder, fresh_store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["drift"]) == 1
    assert "has no index.parquet, pixels.npz; it is of an older program" in capsys.readouterr().err
    then, now = make(tmp_path / "then"), make(tmp_path / "now", images=44)
    release = Release.from_folder("alexnet", then.index.parent)
    registry = Registry(Bucket(fresh_store.registry, fresh_store), "alexnet")
    registry.publish(release, then.index.parent, None)
    registry.move("latest", release)
    for name in ("index.parquet", "pixels.npz"):
        shutil.copy(now.index.parent / name, shop.path(name))
    assert cli.main(["drift", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["model"] == "alexnet@latest"
    expected = {"quantity": "images", "before": 40, "now": 44, "distance": None, "note": "4 new, 0 gone", "notable": False}
    assert tree["rows"][0] == expected
    assert cli.main(["drift"]) == 0
    assert "\n| images " in capsys.readouterr().out
    assert cli.main(["drift", "--index", str(then.index), "--offline"]) == 0
    assert capsys.readouterr().out == "the data is that of alexnet@latest\n"
