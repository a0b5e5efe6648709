"""What README says of whole runs is what was recorded of them, and of the shipped run what its dvc.lock has."""

import hashlib
from pathlib import Path

import pytest
import yaml

from alexnet.config import to_json
from alexnet.inference.metrics import Baseline, Metrics, Scores
from benchmarks import runs
from benchmarks.report import README
from pipelines.evaluation.results import ProtocolResult, Results
from pipelines.runtime.timings import Timing
from tests.support import sample_shards
from tools.blocks import with_block

RECORDS = runs.read_records()
ROOT = README.parent


def metrics(results: Results) -> bytes:
    """metrics.json of the run that has these results."""

    def scores(of: ProtocolResult) -> Scores:
        return Scores(of.top1_error.value, of.top5_error.value, of.log_loss.value, of.calibration_error)

    named = {"majority": results.majority, "ridge": results.ridge} | results.variants
    baselines = {name: Baseline(error.value) for name, error in named.items()}
    return to_json(Metrics(results.split, scores(results.center_crop), scores(results.many_crops), baselines))


def test_readme_says_what_the_records_hold() -> None:
    text = README.read_text()
    assert text == with_block(with_block(text, "shipped", runs.screen(RECORDS["digits"])), "runs", runs.table(RECORDS))


def test_the_shipped_run_is_the_one_of_dvc_lock() -> None:
    outs = yaml.safe_load((ROOT / "dvc.lock").read_text())["stages"]["evaluate"]["outs"]
    (locked,) = [out["md5"] for out in outs if out["path"] == "artifacts/metrics.json"]
    found = hashlib.md5(metrics(RECORDS["digits"].results)).hexdigest()
    assert found == locked, "dvc.lock is another run's: `python -m benchmarks.runs digits` where it was made"


def test_a_finished_run_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("artifacts/evaluation").mkdir(parents=True)
    Path(".local/timings").mkdir(parents=True)
    shards = sample_shards.make([2, 3])
    shards.manifest().write(Path("artifacts/manifest.json"))
    Path("artifacts/history.csv").write_text("epoch,lr\n0,0.1\n1,0.1\n")
    Path("artifacts/evaluation/results.json").write_bytes(to_json(RECORDS["digits"].results))
    for stage in ("train", "shard"):
        timing = Timing(3.0, 60.0, 10**9, None, None, None, 0, 0, None, None)
        Path(f".local/timings/{stage}.json").write_bytes(to_json(timing))
    run = runs.finished(Path("artifacts"))
    assert (run.images, run.epochs, run.results) == (sum(each.samples for each in shards.shards), 2, RECORDS["digits"].results)
    assert (list(run.took), run.cpu_minutes, run.peak_gigabytes) == (["shard", "train"], 2.0, 1.0)
