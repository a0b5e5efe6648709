"""The baselines, by hand."""

import numpy as np

from alexnet.shards.manifest import Manifest, Shard, Synset
from pipelines.evaluation import baselines


def test_thumbnails_are_averages() -> None:
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 32, 3), np.uint8)
    by_hand = images.reshape(2, 4, 8, 4, 8, 3).mean((2, 4)) / 255
    assert np.abs(baselines.thumbnails(images, 4) - by_hand.reshape(2, -1)).max() <= 1.01 / 255  # both passes round


def test_classes_that_differ_by_color_are_learned() -> None:
    def batch(seed: int) -> tuple[baselines.Images, baselines.Labels]:
        labels = np.random.default_rng(seed).integers(0, 3, 12)
        images = np.zeros((12, 32, 32, 3), np.uint8)
        images[np.arange(12), :, :, labels] = 200
        return images, labels

    assert baselines.ridge_errors([batch(1), batch(2)], {"val": [batch(3)], "test": [batch(4)]}, 3, 4, 1.0) == {
        "val": 0,
        "test": 0,
    }


def test_the_majority_is_that_of_training_and_its_error_that_of_the_judged_split() -> None:
    def shard(*counts: int) -> Shard:
        return Shard("name", 0, "", sum(counts), dict(enumerate(counts)))

    synsets = tuple(Synset(label, str(label), str(label)) for label in range(3))
    splits = {"train": (shard(1, 5, 2), shard(6, 1, 2)), "val": (shard(2, 3, 5),), "test": (shard(0, 3, 1),)}
    manifest = Manifest("test", "prefix/", 32, synsets, splits)  # type: ignore[arg-type]
    assert baselines.majority_error(manifest, "val") == 0.8
    assert baselines.majority_error(manifest, "test") == 1.0
