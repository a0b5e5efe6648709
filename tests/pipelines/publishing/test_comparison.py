"""The rule by which a network may replace the champion."""

import numpy as np
import pytest

from pipelines.evaluation import intervals
from pipelines.publishing.comparison import Comparison, decide

MARGIN = 0.01


def comparison(only_first: int, only_second: int, images: int) -> Comparison:
    wrong = np.zeros((2, images), bool)
    wrong[0, :only_first] = True
    wrong[1, only_first : only_first + only_second] = True
    error, other = (intervals.share(float(each.mean()), images) for each in wrong)
    return Comparison(error, other, intervals.compare(*wrong))


@pytest.mark.parametrize(
    ("only_first", "only_second", "images", "expected"),
    [
        (0, 0, 5, True),  # they agree
        (10, 10, 1250, True),  # equal, with other mistakes
        (0, 1, 5, True),  # better, on few images
        (1, 0, 5, False),  # worse, on few images
        (40, 10, 1250, False),  # clearly worse
        (12, 10, 1250, True),  # 0.16 points worse, at most 0.9
        (14, 10, 1250, False),  # 0.32 points worse, perhaps 1.1
        (60, 30, 50_000, True),  # surely worse, and surely by less than the margin
        (560, 30, 50_000, False),
    ],
)
def test_a_network_that_is_not_worse_may_be_champion(only_first: int, only_second: int, images: int, expected: bool) -> None:
    assert decide(comparison(only_first, only_second, images), MARGIN)[0] is expected
