"""Scores of predictions, against scikit-learn's on the same, and ties by their rule."""

import itertools
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from sklearn import metrics as sklearn

from alexnet.inference.metrics import LabelRanks, TopK, calibration, calibration_error, confusion_matrix, error, errors_by_class
from alexnet.inference.ranking import from_tensors, summarize


def predicted(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray, TopK, LabelRanks]:
    """Probabilities without ties, labels, and what is kept of them."""
    drawn = np.random.default_rng(seed)
    logits = drawn.normal(0, 2, (n, classes))
    probabilities = torch.from_numpy(logits).softmax(1).float()
    labels = np.where(drawn.random(n) < 0.6, logits.argmax(1), drawn.integers(0, classes, n))
    return probabilities.double().numpy(), labels, *from_tensors([summarize(probabilities, torch.from_numpy(labels))])


@given(n=st.integers(30, 60), classes=st.integers(6, 12), seed=st.integers(0, 99))
def test_scores_are_scikit_learns_to_1e_9(n: int, classes: int, seed: int) -> None:
    probabilities, labels, top, ranks = predicted(n, classes, seed)
    every = range(classes)
    for k in (1, 5):
        assert error(ranks, k) == pytest.approx(
            1 - sklearn.top_k_accuracy_score(labels, probabilities, k=k, labels=every), abs=1e-9
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that float32 probabilities add up to 1 only nearly
        expected = sklearn.log_loss(labels, probabilities, labels=every)
    assert ranks.losses.mean() == pytest.approx(expected, abs=1e-9)
    matrix = confusion_matrix(top.labels[:, 0], labels, classes)
    assert (matrix == sklearn.confusion_matrix(labels, probabilities.argmax(1), labels=every)).all()
    with np.errstate(invalid="ignore"):
        assert np.allclose(
            errors_by_class(ranks, labels, classes, 1), 1 - np.diag(matrix) / matrix.sum(1), 0, 1e-9, equal_nan=True
        )


@given(seed=st.integers(0, 99), bins=st.integers(1, 20))
def test_the_calibration_error_is_what_counting_by_hand_gives(seed: int, bins: int) -> None:
    probabilities, labels, top, ranks = predicted(50, 6, seed)
    found = calibration(top, ranks, bins)
    total = 0.0
    for number, (low, high) in enumerate(itertools.pairwise(np.linspace(0, 1, bins + 1))):
        inside = (probabilities.max(1) > low) & (probabilities.max(1) <= high)
        assert found.images[number] == inside.sum()
        if inside.any():
            right = probabilities.argmax(1)[inside] == labels[inside]
            total += inside.mean() * abs(right.mean() - probabilities.max(1)[inside].mean())
    assert calibration_error(found) == pytest.approx(total, abs=1e-9)


@given(
    given_=arrays.arrays(np.float32, (1, 7), elements=st.sampled_from([0.1, 0.2, 0.4]).map(np.float32)),
    label=st.integers(0, 6),
    k=st.integers(1, 7),
)
def test_equal_probabilities_share_the_ranks_that_they_occupy(given_: np.ndarray, label: int, k: int) -> None:
    """As often as the label is among the first k when the order of equal ones is drawn by lot."""
    _, ranks = from_tensors([summarize(torch.from_numpy(given_), torch.tensor([label]))])
    above, tied = int((given_ > given_[0, label]).sum()), int((given_ == given_[0, label]).sum())
    places = [above + place < k for place in range(tied)]  # each is as likely
    assert ranks.credit(k)[0] == pytest.approx(np.mean(places))


def test_a_network_that_knows_nothing_errs_as_one_that_guesses() -> None:
    _, ranks = from_tensors([summarize(torch.full((10, 1000), 0.001), torch.arange(10))])
    assert error(ranks, 1) == pytest.approx(0.999)
    assert error(ranks, 5) == pytest.approx(0.995)


def test_with_five_classes_or_fewer_top5_error_is_nothing() -> None:
    _, _, top, ranks = predicted(9, 4, 1)
    assert top.labels.shape == (9, 4)
    assert error(ranks, 5) == 0


def test_a_probability_of_nothing_costs_no_more_than_the_least() -> None:
    _, ranks = from_tensors([summarize(torch.tensor([[1.0, 0.0]]), torch.tensor([1]))])
    assert ranks.losses[0] == pytest.approx(87.3365, abs=1e-3)


@given(pairs=arrays.arrays(np.int64, (30, 2), elements=st.integers(0, 4)))
def test_confusions_add_up(pairs: np.ndarray) -> None:
    labels, guesses = pairs.T
    matrix = confusion_matrix(guesses.copy(), labels.copy(), 5)
    assert matrix.sum() == 30
    assert all(matrix[a, b] == ((labels == a) & (guesses == b)).sum() for a in range(5) for b in range(5))


def test_classes_without_images_have_no_error() -> None:
    ranks = LabelRanks(np.ones(3, np.float32), np.array([0, 1, 0]), np.array([1, 1, 1]))
    errors = errors_by_class(ranks, np.array([0, 0, 2]), 3, 1)
    assert errors.tolist() == [0.5, pytest.approx(float("nan"), nan_ok=True), 0.0]
