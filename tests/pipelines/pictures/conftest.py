"""What holds for every picture that a test draws."""

from collections.abc import Iterator

import pytest
from matplotlib.backend_bases import RendererBase
from matplotlib.text import Text


@pytest.fixture(autouse=True)
def nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No text runs over an edge of its picture."""
    draw, cut_off = Text.draw, set()

    def checked(self: Text, renderer: RendererBase, *args: object, **kwargs: object) -> None:
        draw(self, renderer, *args, **kwargs)
        figure = self.get_figure(root=True)
        if figure and self.get_visible() and self.get_text().strip():
            edge, box = figure.bbox.padded(1), self.get_window_extent(renderer)
            if not (edge.contains(*box.min) and edge.contains(*box.max)):
                cut_off.add(self.get_text())

    monkeypatch.setattr(Text, "draw", checked)
    yield
    assert cut_off == set()
