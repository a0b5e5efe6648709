"""The most probable classes, and the ranks of the images' own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from alexnet.inference.ranking import from_tensors, gaps, summarize, topk

LEVELS = st.sampled_from([0.0, 0.1, 0.2, 0.5]).map(np.float32)  # few, so that many are equal


def test_of_equal_probabilities_the_lower_label_is_first() -> None:
    top = topk(torch.tensor([[0.2, 0.4, 0.4, 0.0]]))
    assert top.labels.tolist() == [[1, 2, 0, 3]]
    assert top.probabilities.tolist() == torch.tensor([[0.4, 0.4, 0.2, 0.0]]).tolist()


def test_a_gap_is_what_the_best_class_or_the_best_five_lead_by() -> None:
    logs = torch.tensor([[0.0, -0.5, -1.0, -2.0, -4.0, -4.25, -9.0], [-1.0, -1.125, -3.0, -3.5, -2.0, -200.0, -200.0]])
    assert gaps(logs.exp()).tolist() == pytest.approx([0.25, 0.125], abs=1e-4)
    assert gaps(logs[:, :5].exp()).tolist() == pytest.approx([0.5, 0.125], abs=1e-4)  # all five are the best five
    assert gaps(torch.tensor([[1.0, 0, 0, 0, 0, 0, 0]])).tolist() == [0.0]  # the fifth and sixth are equal


@given(
    given_=arrays.arrays(np.float32, (6, 8), elements=LEVELS),
    labels=arrays.arrays(np.int64, 6, elements=st.integers(0, 7)),
)
def test_ranks_are_what_counting_by_hand_gives_in_parts_or_at_once(given_: np.ndarray, labels: np.ndarray) -> None:
    probabilities, own = torch.from_numpy(given_), torch.from_numpy(labels)
    top, ranks = from_tensors([summarize(probabilities[part], own[part]) for part in (slice(0, 2), slice(2, 6))])
    for row, label, order, greater, equal in zip(given_, labels, top.labels, ranks.greater, ranks.equal, strict=True):
        assert order.tolist() == sorted(range(8), key=lambda c: (-row[c], c))[:5]
        assert greater == sum(p > row[label] for p in row)
        assert equal == sum(p == row[label] for p in row)
    assert (ranks.probability == given_[np.arange(6), labels]).all()
