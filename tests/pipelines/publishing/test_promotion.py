"""The gate of all aliases, and what becomes champion: small networks that always give one answer, on a real registry."""

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from alexnet.inference.metrics import Baseline
from alexnet.inference.pretrained import PretrainedConfig, save_pretrained
from alexnet.model.network import initial_weights
from alexnet.shards.manifest import Manifest, Synset
from pipelines.publishing import promotion
from pipelines.publishing.promotion import Candidate, Promotion, gate, settle
from pipelines.registry.aliases import Why
from pipelines.registry.release import PublishConfig, Release
from pipelines.registry.store import Registry
from pipelines.runtime.environment import Store
from pipelines.runtime.errors import Unreachable
from pipelines.storage.bucket import Bucket, registry_bucket
from tests.support import sample_shards
from tests.support.trained_folder import METRICS, SIDE_PX, VALIDATION, TrainedFolder, make_trained_folder

CONFIG = PublishConfig("alexnet", "latest", (), 0.1, must_beat_baselines=True, margin=0.01)
MARGIN = 0.01


@pytest.fixture
def place(tmp_path: Path, fresh_store: Store, monkeypatch: pytest.MonkeyPatch) -> TrainedFolder:
    return make_trained_folder(tmp_path, fresh_store, monkeypatch)


@pytest.fixture
def registry(place: TrainedFolder) -> Registry:
    return Registry(registry_bucket(), "alexnet")


def shards(place: TrainedFolder, store: Store, labels: Sequence[int]) -> Manifest:
    """The manifest with a validation split of images of these classes, whose shard is in the bucket."""
    images = [sample_shards.jpeg(100 + i, SIDE_PX) for i in range(len(labels))]
    members = [(f"v{i:05}.jpg", image) for i, image in enumerate(images)]
    cls = [(f"v{i:05}.cls", str(label).encode()) for i, label in enumerate(labels)]
    body = sample_shards.tar([member for pair in zip(members, cls, strict=True) for member in pair])
    name = f"val-{'-'.join(map(str, labels))}.tar"
    Bucket(store.bucket, store).put(f"shards/test/{name}", body)
    shard = sample_shards.describe(name, body, labels)
    return replace(place.manifest, splits={**place.manifest.splits, "val": (shard,)})


def candidate(registry: Registry, place: TrainedFolder, answer: int, manifest: Manifest, note: str = "") -> Candidate:
    """A published network that gives every image the same class."""
    folder = place.root / f"{answer}{note}"
    weights = dict(initial_weights(place.model.config.model, seed=1))
    weights["fc8.weight"] = torch.zeros_like(weights["fc8.weight"])
    weights["fc8.bias"] = torch.nn.functional.one_hot(torch.tensor(answer), 3).float()
    config = replace(place.model.config, synsets=manifest.synsets)
    save_pretrained(folder, config, weights, torch.full((SIDE_PX, SIDE_PX, 3), 120.0))
    (folder / "note").write_text(note)
    release = Release.from_folder("alexnet", folder)
    registry.publish(release, folder, None)
    return Candidate(release, folder, manifest, 2)


def champion(registry: Registry) -> str | None:
    found = registry.alias("champion")
    return found.version if found else None


# The gate.


def test_the_gate_looks_at_the_error_at_baselines_and_at_critical_rules() -> None:
    assert gate(CONFIG, METRICS, VALIDATION) is None
    allows = "top-1 error is 0.1000, publish.max_top1_error allows 0.05"
    assert gate(replace(CONFIG, max_top1_error=0.05), METRICS, VALIDATION) == allows
    broken = replace(VALIDATION, rules=(replace(VALIDATION.rules[0], success=False),))
    assert gate(CONFIG, METRICS, broken) == "the data broke a critical rule: No key stands twice"
    for name in ("majority", "ridge"):
        weak = replace(METRICS, baselines=METRICS.baselines | {name: Baseline(0.1), "one-tower": Baseline(0.0)})
        assert f"not below that of the baseline {name}, 0.1000; `alexnet promote`" in str(gate(CONFIG, weak, VALIDATION))
        assert gate(replace(CONFIG, must_beat_baselines=False), weak, VALIDATION) is None


# On a registry.


def test_the_first_an_equal_and_a_better_one_become_champion_and_a_worse_one_does_not(
    registry: Registry, place: TrainedFolder, fresh_store: Store
) -> None:
    """Also on another validation set, where the one that was worse is better."""
    manifest = shards(place, fresh_store, [0, 0, 0, 1, 2])
    first = candidate(registry, place, 1, manifest)
    assert settle(registry, first, MARGIN) == Promotion(True, "it is the first that passes the gate")
    equal = candidate(registry, place, 1, manifest, "equal")
    assert settle(registry, equal, MARGIN).is_champion
    better = candidate(registry, place, 0, manifest)
    assert settle(registry, better, MARGIN).is_champion
    worse = candidate(registry, place, 2, manifest)
    outcome = settle(registry, worse, MARGIN)
    assert not outcome.is_champion
    assert outcome.compared_with == better.release.version == champion(registry)
    assert outcome.reason.startswith(
        f"top-1 error 80.00% beside 40.00% of {better.release.version}, on the same 5 validation images "
        "(3 wrong by this one only, 1 by that one only), a difference of +40.00 points ("
    )
    assert outcome.reason.endswith("p = 0.62: worse, and not surely by less than the margin of 1.00 points")
    changed = replace(worse, manifest=shards(place, fresh_store, [2, 2, 2, 1, 0]))
    assert settle(registry, changed, MARGIN).is_champion
    versions = [each.release.version for each in (first, equal, better, worse)]
    records = registry.history("champion")
    assert [each.move.version for each in records] == versions
    assert {(each.move.action, each.faults) for each in records} == {("publish", ())}
    assert registry.aliases().keys() == {"champion"}


def test_a_champion_of_other_classes_is_kept_until_asked(registry: Registry, place: TrainedFolder, fresh_store: Store) -> None:
    manifest = shards(place, fresh_store, [0, 1])
    old = candidate(registry, place, 0, manifest)
    settle(registry, old, MARGIN)
    named = tuple(Synset(each.label, each.wnid, f"the {each.name}") for each in manifest.synsets)
    assert settle(registry, candidate(registry, place, 0, replace(manifest, synsets=named), "named"), MARGIN).is_champion
    others = tuple(Synset(each.label, f"n1{each.wnid[2:]}", each.name) for each in manifest.synsets)
    new = candidate(registry, place, 0, replace(manifest, synsets=others), "other")
    outcome = settle(registry, new, MARGIN)
    assert (outcome.is_champion, outcome.comparison) == (False, None)
    assert outcome.reason.startswith("the champion cannot be compared: the classes are others now: without n00000000, ")
    assert outcome.reason.endswith(f"`alexnet promote alexnet@{new.release.version}` makes it champion")
    registry.move("champion", new.release, Why("promote", "asked"))
    assert settle(registry, new, MARGIN) == Promotion(True, "it is the champion already, by promote")


def test_a_damaged_champion_is_kept_and_a_store_that_does_not_answer_is_no_verdict(
    registry: Registry, place: TrainedFolder, fresh_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = shards(place, fresh_store, [0, 1])
    old, new = candidate(registry, place, 0, manifest), candidate(registry, place, 0, manifest, "new")
    settle(registry, old, MARGIN)
    with monkeypatch.context() as away:

        def fetch(reference: str) -> Path:
            raise Unreachable(f"{reference}: gone")

        away.setattr(promotion, "fetch", fetch)
        with pytest.raises(Unreachable):
            settle(registry, new, MARGIN)
    registry.bucket.put(registry.key(old.release.version, "model.safetensors"), b"x" * 100)
    outcome = settle(registry, new, MARGIN)
    assert not outcome.is_champion
    assert "it was damaged or changed, do not use it" in outcome.reason
    assert champion(registry) == old.release.version


def test_a_release_that_was_champion_before_its_receipt_has_the_same_outcome_again(
    registry: Registry, place: TrainedFolder, fresh_store: Store
) -> None:
    manifest = shards(place, fresh_store, [0, 0, 1])
    for each in (candidate(registry, place, 1, manifest), candidate(registry, place, 0, manifest)):
        assert settle(registry, each, MARGIN) == settle(registry, each, MARGIN)
    assert len(registry.history("champion")) == 2


def test_of_publishers_that_race_the_best_is_champion_and_nobody_replaced_what_it_did_not_beat(
    registry: Registry, place: TrainedFolder, fresh_store: Store
) -> None:
    """Three at once, of errors 60, 80 and 80%: each compares again when another was first."""
    manifest = shards(place, fresh_store, [0, 0, 1, 2, 2])
    racing = [candidate(registry, place, answer, manifest, note) for answer, note in ((0, ""), (1, "a"), (1, "b"))]
    start = threading.Barrier(3)

    def run(each: Candidate) -> Promotion:
        start.wait()
        return settle(registry, each, MARGIN)

    with ThreadPoolExecutor(3) as pool:
        outcomes = list(pool.map(run, racing))
    assert champion(registry) == racing[0].release.version
    assert outcomes[0].is_champion
    error = {each.release.version: 0.6 if each is racing[0] else 0.8 for each in racing}
    moves = [each.move for each in registry.history("champion")]
    assert all(error[each.version] <= error[each.previous] for each in moves if each.previous)
    assert [each.previous for each in moves] == [None, *(each.version for each in moves[:-1])]


def test_a_network_of_images_of_another_size_cannot_be_compared(
    registry: Registry, place: TrainedFolder, fresh_store: Store
) -> None:
    manifest = shards(place, fresh_store, [0, 1])
    settle(registry, candidate(registry, place, 0, manifest), MARGIN)
    folder = place.root / "large"
    config: PretrainedConfig = place.model.config
    large = replace(config, preprocessing=replace(config.preprocessing, side_px=288))
    save_pretrained(folder, large, initial_weights(config.model, seed=1), torch.full((288, 288, 3), 120.0))
    release = Release.from_folder("alexnet", folder)
    registry.publish(release, folder, None)
    registry.move("champion", release, Why("promote"))
    outcome = settle(registry, candidate(registry, place, 0, manifest, "new"), MARGIN)
    assert outcome.reason.startswith("the champion cannot be compared: it knows images of 288 px, the shards have 256 px")
