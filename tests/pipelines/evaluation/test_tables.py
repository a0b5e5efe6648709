"""The curves' table; the others are tested with the evaluate stage, whose predictions they show."""

from pathlib import Path

from alexnet.inference.metrics import Baseline, Baselines
from pipelines.evaluation import tables


def test_curves_count_epochs_from_one_and_have_the_baselines_beside_them(tmp_path: Path) -> None:
    (tmp_path / "history.csv").write_text("epoch,step,val_top1_error\n0,3,0.5\n1,6,0.25\n")
    tables.write_curves(tmp_path / "curves.csv", tmp_path / "history.csv", Baselines(Baseline(0.9), Baseline(0.125)))
    lines = (tmp_path / "curves.csv").read_text().splitlines()
    assert lines == ["epoch,step,val_top1_error,ridge,majority", "1,3,0.5,0.125,0.9", "2,6,0.25,0.125,0.9"]
