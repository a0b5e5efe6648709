"""What is said of conv1's kernels."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipelines.pictures import kernels


def test_noise_has_two_thirds_color_and_no_structure() -> None:
    weight = torch.randn((4000, 3, 11, 11), generator=torch.Generator().manual_seed(1))
    facts = kernels.kernel_facts(weight, 2, is_grey=False)
    for each in facts:
        assert each.color == pytest.approx(2 / 3, abs=0.01)
        assert each.structure == pytest.approx(0, abs=0.01)
        assert each.structured == pytest.approx(0.01, abs=0.01)


def test_a_grey_edge_and_a_flat_color_are_structure_and_differ_in_color() -> None:
    edge = np.zeros((1, 3, 11, 11))
    edge[:, :, :, :5], edge[:, :, :, 5:] = -1, 1
    flat = np.zeros((1, 3, 11, 11))
    flat[:, 0], flat[:, 1] = 1, -1
    assert kernels.color_share(edge) == 0
    assert kernels.color_share(flat) == 1
    assert kernels.neighbor_correlation(flat) == pytest.approx(1)
    assert kernels.has_structure(np.concatenate([edge, flat])).all()


def test_of_grey_images_only_the_sum_of_the_channels_counts() -> None:
    weight = torch.zeros((2, 3, 11, 11))
    weight[:, 0], weight[:, 1] = 1, -1  # acts on no grey image
    weight[:, 2] = torch.randn((2, 11, 11), generator=torch.Generator().manual_seed(1))
    (facts,) = kernels.kernel_facts(weight, 1, is_grey=True)
    assert facts.color is None
    assert facts.structured == 0
    assert kernels.images_are_grey(torch.full((8, 8, 3), 7.0))
    assert not kernels.images_are_grey(torch.rand((8, 8, 3), generator=torch.Generator().manual_seed(1)) * 255)


def test_one_towers_kernels_in_color_are_drawn(tmp_path: Path) -> None:
    weight = torch.randn((20, 3, 11, 11), generator=torch.Generator().manual_seed(1))
    kernels.draw_kernels(tmp_path / "kernels", weight, 1, torch.rand(8, 8, 3) * 255)
    with Image.open(tmp_path / "kernels.png") as image:
        assert len(image.getcolors(1 << 20) or ()) > 100
    assert "Most of what they show is the noise they started as." in (tmp_path / "kernels.svg").read_text()
