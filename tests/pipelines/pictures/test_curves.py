"""Curves hold every value."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipelines.pictures import curves, style

HISTORY = """epoch,step,lr,train_loss,train_top1_error,val_loss,val_top1_error,val_top5_error
0,2,0.01,9.5,0.97,1.1,0.6,0.1
1,4,0.001,0.9,0.5,0.8,0.4,0.0
"""


def test_nothing_is_clipped_and_epochs_count_from_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Figure()
    monkeypatch.setattr(style, "save", lambda stem, inches, draw, title: draw(figure))
    (tmp_path / "history.csv").write_text(HISTORY)
    curves.draw_curves(tmp_path / "curves", tmp_path / "history.csv", 0.99)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        assert low == 0
        assert max(np.max(line.get_ydata()) for line in axes.lines) <= high
    assert np.array_equal(figure.axes[0].lines[0].get_xdata(), [1, 2])
    assert [text.get_text() for text in figure.axes[0].texts] == ["lr 0.001"]
