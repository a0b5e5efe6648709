"""What the tests of the commands share."""

from pathlib import Path

import pytest

from pipelines.registry.release import Release
from pipelines.registry.store import Registry
from pipelines.runtime.environment import Store
from pipelines.storage.bucket import Bucket
from tests.support.trained_folder import TrainedFolder, make_trained_folder


@pytest.fixture
def shop(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    """A small model, published twice: as latest, and before."""
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch)
    registry = Registry(Bucket(fresh_store.registry, fresh_store), "alexnet")
    for text in ("first", "second"):
        (place.path("model") / "README.md").write_text(text)
        release = Release.from_folder("alexnet", place.path("model"))
        registry.publish(release, place.path("model"), None)
        registry.move("latest", release)
    return place
