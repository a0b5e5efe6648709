"""Intervals and the paired test, against their formulas."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.evaluation.intervals import compare, mean, share


def test_nineteen_wrong_of_1250_is_0_98_to_2_36_percent() -> None:
    found = share(19 / 1250, 1250)
    assert (round(found.low, 4), round(found.high, 4)) == (0.0098, 0.0236)


@given(images=st.integers(1, 5000), data=st.data())
def test_a_share_has_wilsons_interval(images: int, data: st.DataObject) -> None:
    wrong = data.draw(st.integers(0, images))
    p, z = wrong / images, 1.959963984540054
    middle = (p + z**2 / (2 * images)) / (1 + z**2 / images)
    half = z / (1 + z**2 / images) * math.sqrt(p * (1 - p) / images + z**2 / (4 * images**2))
    found = share(p, images)
    assert (found.low, found.high) == pytest.approx((middle - half, middle + half), abs=1e-9)


def test_a_mean_has_the_normal_interval() -> None:
    found = mean(np.array([1.0, 2.0, 3.0, 6.0]))
    half = 1.959963984540054 * np.std([1, 2, 3, 6], ddof=1) / 2
    assert (found.value, found.low, found.high) == pytest.approx((3, 3 - half, 3 + half))
    assert mean(np.array([2.0])).low == 2


def test_two_networks_are_compared_by_the_images_on_which_only_one_is_wrong() -> None:
    first = np.array([True] * 9 + [False] * 3 + [True] * 50)
    second = np.array([False] * 9 + [True] * 3 + [True] * 50)
    found = compare(first, second)
    assert (found.only_first_wrong, found.only_second_wrong) == (9, 3)
    assert found.p_value == pytest.approx(2 * sum(math.comb(12, k) for k in range(4)) / 2**12)
    assert found.difference.value == 6 / 62
    assert compare(first, first).p_value == 1


@given(st.integers(0, 200), st.integers(0, 200), st.integers(1, 2000))
def test_a_difference_has_walds_interval_with_half_an_image_more_in_every_cell(first: int, second: int, both: int) -> None:
    wrong = np.array([[True, False]] * first + [[False, True]] * second + [[True, True]] * both)
    found = compare(wrong[:, 0], wrong[:, 1]).difference
    values = np.concatenate([wrong[:, 0].astype(float) - wrong[:, 1], [0.0, 0.0]])  # the four halves: 1/2 at 1 and -1, one at 0
    variance = (np.square(values).sum() + 1) / len(values) - values.mean() ** 2
    half = 1.959963984540054 * math.sqrt(variance / len(values))
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=1e-12)
    assert found.low < found.value < found.high
