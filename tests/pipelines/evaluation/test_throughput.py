"""Images per second, on a clock that a network turns."""

import time
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from alexnet.loading.config import Views
from pipelines.evaluation import throughput


class Slow:
    """Takes a second an image and crop, and nine more the first time."""

    def __init__(self) -> None:
        self.now, self.seen = 0.0, 0

    def by_crop(self, images: Tensor, views: Views) -> Tensor:
        self.now += len(images) * {"center": 1, "ten": 10}[views] + (0 if self.seen else 9)
        self.seen += 1
        return torch.zeros(1)


def test_the_first_pass_does_not_count_and_a_pass_has_at_most_so_many_crops(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = cast("Any", Slow())
    monkeypatch.setattr(time, "perf_counter", lambda: slow.now)
    images = torch.zeros(8, 4, 4, 3, dtype=torch.uint8)
    assert throughput.measure(slow, images, ["center", "ten"], 40) == {"center": 1.0, "ten": 0.1}
    assert slow.now == 9 + 6 * 8 + 6 * 4 * 10
