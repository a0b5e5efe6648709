"""Figure 1, drawn again."""

from pathlib import Path

from pipelines.pictures import speed, style
from pipelines.pictures.speed import Learning


def test_every_seed_is_a_line_and_the_second_side_is_dashed(tmp_path: Path) -> None:
    sides = (Learning("ReLU", [(0.8, 0.3, 0.1), (0.9, 0.2, 0.0)]), Learning("tanh", [(0.9, 0.8, 0.7), (0.9, 0.7, 0.6)]))
    speed.draw_speed(tmp_path / "figure1", sides, 0.25)
    assert (tmp_path / "figure1.png").stat().st_size > 1000
    svg = (tmp_path / "figure1.svg").read_text()
    for color in (style.BLUE, style.ORANGE):
        assert svg.count(f"stroke: {color}") == 5  # the mean, two seeds, the legend, and the rule of the dark scheme
    assert "stroke-dasharray" in svg
