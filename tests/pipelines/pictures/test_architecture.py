"""Figure 2 of any configuration: what it says is what the table says."""

import re
from pathlib import Path

import pytest

from pipelines.config import params
from pipelines.pictures.architecture import render_architecture

ROOT = Path(__file__).parents[3]


def texts(svg: bytes) -> list[str]:
    """What matplotlib writes beside the paths of its letters."""
    return re.findall(r"<!-- (.*?) -->", svg.decode())


def test_the_papers_network_is_drawn_with_its_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    files = render_architecture(params.load(preset="imagenet").model, "AlexNet: $imagenet$")
    shown = texts(files["svg"])
    assert "AlexNet: $imagenet$" in shown
    assert "2 towers, 60,965,224 parameters, 724.4 M multiply-adds a crop" in shown
    assert "picture, 224x224x3" in shown
    assert {"conv1a: 48 of 11x11x3/4", "conv1b: 48 of 11x11x3/4", "conv2a: 128 of 5x5x48", "conv3b: 192 of 3x3x256"} < set(
        shown
    )
    assert {"55x55, LRN, pool 3/2: 27x27, ReLU", "ReLU, dropout 0.5", "fc8: 1,000 classes"} < set(shown)
    assert files["png"].startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("variant", "has", "lacks"),
    [
        ("one-tower", "conv1: 12 of 11x11x3/4", "orange: a cross connection, the layer reads both towers"),
        ("tanh", "13x13, tanh", "13x13, ReLU"),
        ("six-conv", "conv6a: 32 of 3x3x64", "nothing"),
    ],
)
def test_a_variant_is_drawn_as_it_is(variant: str, has: str, lacks: str) -> None:
    shown = texts(render_architecture(params.load(ROOT / "params.yaml", variant=variant).model, variant)["svg"])
    assert has in shown
    assert lacks not in shown
