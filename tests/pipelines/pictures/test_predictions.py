"""Which images a picture of predictions shows."""

import numpy as np

from alexnet.inference.metrics import TopK
from pipelines.pictures.predictions import choose, confident_mistakes

KEYS = [f"k{i}" for i in range(40)]
SURE = np.linspace(0.5, 1, 40, dtype=np.float32)[:, None]
RIGHT = np.zeros(40, np.int64)


def kinds(labels: np.ndarray, top: TopK) -> list[str]:
    return [one.kind for one in choose(KEYS, top, labels)]


def test_eight_images_are_chosen_to_teach() -> None:
    top = TopK(np.where(np.arange(40)[:, None] % 4 == 0, 1, 0), SURE)
    chosen = choose(KEYS, top, RIGHT)
    assert [one.kind for one in chosen] == ["right, and sure"] * 3 + ["right, and unsure"] * 2 + ["wrong"] * 3
    assert [one.at for one in chosen[3:5]] == [1, 2]  # the least probable of the right ones
    right = SURE[top.labels[:, 0] == 0]
    assert all(SURE[one.at] >= np.median(right) for one in chosen[:3])
    assert all((one.at % 4 == 0) == (one.kind == "wrong") for one in chosen)
    assert len({one.at for one in chosen}) == 8


def test_where_a_kind_lacks_images_others_stand_in() -> None:
    all_right, all_wrong = TopK(np.zeros((40, 1), np.int64), SURE), TopK(np.ones((40, 1), np.int64), SURE)
    assert kinds(RIGHT, all_right) == ["right, and sure"] * 6 + ["right, and unsure"] * 2
    assert kinds(RIGHT, all_wrong) == ["wrong"] * 8


def test_the_most_confident_mistakes_come_first() -> None:
    top = TopK(np.where(np.arange(40)[:, None] % 4 == 0, 1, 0), SURE)
    assert [one.at for one in confident_mistakes(top, RIGHT, 3)] == [36, 32, 28]
    assert confident_mistakes(TopK(np.zeros((40, 1), np.int64), SURE), RIGHT) == []
