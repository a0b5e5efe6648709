"""What is said of a version without fetching it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from alexnet.errors import DataError
from pipelines.registry import signing
from pipelines.registry.details import details
from pipelines.registry.release import Release
from pipelines.registry.store import Registry
from tests.pipelines.registry.conftest import MakeKeys, make


def publish(registry: Registry, folder: Path, metrics: str) -> Release:
    _, folder = make(folder)
    (folder / "metrics.json").write_text(metrics)
    release = Release.from_folder("alexnet", folder)
    registry.publish(release, folder, signing.sign(release.manifest()))
    registry.move("latest", release)
    return release


def test_a_version_has_a_date_errors_aliases_and_signers(registry: Registry, tmp_path: Path, make_keys: MakeKeys) -> None:
    key = make_keys("key")
    metrics = {"center_crop": {"top1_error": 0.25, "top5_error": 0.0625, "more": 1}, "other": []}
    release = publish(registry, tmp_path / "model", json.dumps(metrics))
    found = details(registry, release.version, registry.aliases())
    assert (found.top1_error, found.top5_error, found.aliases, found.signed_by) == (0.25, 0.0625, ("latest",), (key.id,))
    assert (found.bytes, found.files) == (release.total_bytes, release.files)
    assert abs(datetime.fromisoformat(found.published) - datetime.now(UTC)) < timedelta(hours=1)
    assert found.where == f"{registry.bucket}/alexnet/versions/{release.version}/"


@pytest.mark.parametrize("error", ["1" + "0" * 4000, "-1e308", "true", "1e300", '"x"'])
def test_what_is_no_fraction_is_no_error_rate(error: str, registry: Registry, tmp_path: Path) -> None:
    release = publish(registry, tmp_path / "model", f'{{"center_crop": {{"top1_error": {error}}}}}')
    assert details(registry, release.version, {}).top1_error is None


def test_a_version_has_an_interval_baselines_and_a_commit(registry: Registry, tmp_path: Path) -> None:
    _, folder = make(tmp_path)
    (folder / "evaluation").mkdir()
    files = {
        "metrics.json": {"center_crop": {"top1_error": 0.25}, "baselines": {"ridge": {"top1_error": 0.5}, "x": 1}},
        "evaluation/results.json": {"protocols": [{"top1_error": {"value": 0.25, "low": 0.2, "high": 0.3}}]},
        "provenance.json": {"commit": "ab" * 20, "changed": ["params.yaml"]},
    }
    for name, tree in files.items():
        (folder / name).write_text(json.dumps(tree))
    release = Release.from_folder("alexnet", folder)
    registry.publish(release, folder, None)
    found = details(registry, release.version, {})
    assert (found.top1_interval, found.baselines) == ((0.2, 0.3), {"ridge": 0.5})
    assert found.commit == f"{'ab' * 20} with changes"


@pytest.mark.parametrize("metrics", ['{"accuracy": 1}', "[" * 10_000, '{"center_crop": []}', "[]"])
def test_metrics_of_another_form_are_errors_not_known(registry: Registry, tmp_path: Path, metrics: str) -> None:
    release = publish(registry, tmp_path / "model", metrics)
    assert details(registry, release.version, {}).top1_error is None


def test_changed_and_missing_metrics_are_named(registry: Registry, tmp_path: Path) -> None:
    release = publish(registry, tmp_path / "model", '{"center_crop": {"top1_error": 0.5}}')
    key = registry.key(release.version, "metrics.json")
    registry.bucket.put(key, b'{"center_crop": {"top1_error": 0.0}}')
    with pytest.raises(DataError, match=r"metrics.json: is not what the manifest names; it was changed, do not use it"):
        details(registry, release.version, {})
    registry.bucket.delete(key)
    with pytest.raises(DataError, match=r"metrics.json: is missing"):
        details(registry, release.version, {})
