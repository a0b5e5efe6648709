"""The error of every layer's classifier."""

from pathlib import Path

from pipelines.pictures.depth import draw_depth


def test_every_row_is_drawn_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "probe.csv").write_text("layer,top1_error,low,high,images\npixels,0.5,0.4,0.6,100\nfc7,0.0123,0.01,0.02,100\n")
    draw_depth(tmp_path / "depth", tmp_path / "probe.csv", "test")
    svg = (tmp_path / "depth.svg").read_text()
    assert "<!-- pixels -->" in svg
    assert "<!--   1.23% -->" in svg
    assert (tmp_path / "depth.png").exists()
