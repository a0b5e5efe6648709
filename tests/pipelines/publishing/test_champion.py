"""Two networks on the same images: tests/pipelines/publishing/test_promotion.py runs them; here, which images they see."""

from dataclasses import replace
from pathlib import Path

import pytest

from alexnet.inference.pretrained import load_pretrained
from pipelines.publishing.champion import compare
from pipelines.runtime.environment import Store
from tests.support.trained_folder import make_trained_folder


def test_a_network_is_as_good_as_itself_on_validation_images_also_where_there_are_test_images(
    tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = make_trained_folder(tmp_path, fresh_store, monkeypatch, counts=(7, 5, 3))
    found = compare(place.path("model"), place.path("model"), place.manifest, batch_size=2)
    assert found.error == found.champion_error
    assert (found.paired.images, found.paired.only_first_wrong, found.paired.only_second_wrong) == (5, 0, 0)
    images = [0, 1, 2, 3, 4]
    model = load_pretrained(place.path("model"))
    assert replace(model).config == place.model.config
    assert found.error.value in [wrong / len(images) for wrong in range(6)]
