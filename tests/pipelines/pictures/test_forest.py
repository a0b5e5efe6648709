"""The forest plot shows every interval, and what it is measured against."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from pipelines.pictures import forest, style
from pipelines.pictures.forest import Line

LINES = [Line("one", 1.0, -0.5, 2.5, 1.4, False), Line("two", -3.0, -4.0, -2.0, None, True)]


def test_every_interval_and_reference_is_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Figure()
    monkeypatch.setattr(style, "save", lambda stem, inches, draw, title: draw(figure))
    forest.draw_forest(tmp_path / "forest", LINES, "points", ("ours", "paper"))
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert low < -4 < 2.5 < high
    drawn = [(np.asarray(line.get_xdata()).tolist(), line.get_marker()) for line in axes.lines]
    assert [-0.5, 2.5] in [places for places, _ in drawn]
    assert [-4.0, -2.0] in [places for places, _ in drawn]
    assert [(places[0], marker) for places, marker in drawn if len(places) == 1] == [(1.0, "o"), (1.4, "D"), (-3.0, "o")]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["one", "two"]


def test_an_interval_that_would_flatten_the_others_is_cut_off_and_written_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = Figure()
    monkeypatch.setattr(style, "save", lambda stem, inches, draw, title: draw(figure))
    far = Line("far", 14.0, -20.0, 47.0, None, False)
    forest.draw_forest(tmp_path / "forest", [*LINES, far], "points", ("ours", "paper"))
    (axes,) = figure.axes
    low, high = axes.get_xlim()
    assert -6 < low < -4
    assert 4 < high < 6
    assert [text.get_text() for text in axes.texts] == ["+14.0 [-20.0, +47.0]"]
    assert {line.get_marker() for line in axes.lines} >= {"<", ">"}


def test_it_is_drawn(tmp_path: Path) -> None:
    forest.draw_forest(tmp_path / "forest", LINES, "points", ("ours", "paper"))
    assert {path.name for path in tmp_path.iterdir()} == {"forest.png", "forest.svg"}
