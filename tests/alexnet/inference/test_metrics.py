"""Error rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from alexnet.inference.metrics import (
    Baseline,
    Baselines,
    ErrorRates,
    Metrics,
    TopK,
    concatenate,
    confusion_matrix,
    error_rates,
    error_rates_by_class,
    topk,
)


def probabilities(n: int, classes: int) -> np.ndarray:
    return np.random.default_rng(n).random((n, classes), np.float32)


@given(n=st.integers(1, 20), classes=st.integers(1, 12), seed=st.integers(0, 99))
def test_errors_are_what_counting_by_hand_gives(n: int, classes: int, seed: int) -> None:
    drawn = np.random.default_rng(seed)
    given_ = drawn.random((n, classes)).astype(np.float32)
    labels = drawn.integers(0, classes, n)
    errors = error_rates(topk(given_), labels)
    ranks = [sorted(range(classes), key=lambda c: (-row[c], c)).index(label) for row, label in zip(given_, labels, strict=True)]
    assert errors == ErrorRates(sum(r > 0 for r in ranks) / n, sum(r > 4 for r in ranks) / n)
    assert errors.top5_error <= errors.top1_error


def test_with_five_classes_or_fewer_top5_error_is_nothing() -> None:
    top = topk(probabilities(9, 4))
    assert top.labels.shape == (9, 4)
    assert error_rates(top, np.arange(9) % 4).top5_error == 0


def test_of_equal_probabilities_the_lower_label_is_first() -> None:
    top = topk(np.array([[0.2, 0.4, 0.4, 0.0]], np.float32))
    assert top.labels.tolist() == [[1, 2, 0, 3]]
    assert top.probabilities.tolist() == [pytest.approx([0.4, 0.4, 0.2, 0.0])]


def test_the_top_k_of_parts_concatenated_are_the_top_k_of_all() -> None:
    whole = probabilities(10, 7)
    joined = concatenate([topk(whole[:3]), topk(whole[3:])])
    assert (joined.labels == topk(whole).labels).all()
    assert (joined.probabilities == topk(whole).probabilities).all()


@given(pairs=arrays.arrays(np.int64, (30, 2), elements=st.integers(0, 4)))
def test_confusions_add_up(pairs: np.ndarray) -> None:
    labels, guesses = pairs.T
    matrix = confusion_matrix(guesses.copy(), labels.copy(), 5)
    assert matrix.sum() == 30
    assert all(matrix[a, b] == ((labels == a) & (guesses == b)).sum() for a in range(5) for b in range(5))


def test_classes_without_images_have_no_error() -> None:
    labels = np.array([0, 0, 2])
    by_class = error_rates_by_class(TopK(np.array([[0], [1], [2]]), np.ones((3, 1), np.float32)), labels, 3)
    assert [each.top1_error for each in by_class] == [0.5, pytest.approx(float("nan"), nan_ok=True), 0.0]


def test_the_protocol_with_the_lower_error_is_best_and_of_equal_ones_ten_crops() -> None:
    baselines = Baselines(Baseline(0.9), Baseline(0.5))
    low, high = ErrorRates(0.1, 0.0), ErrorRates(0.2, 0.0)
    assert Metrics(low, high, baselines, 10, 3).best_views == "center"
    assert Metrics(high, low, baselines, 10, 3).best_views == "ten"
    assert Metrics(low, low, baselines, 10, 3).best_views == "ten"
