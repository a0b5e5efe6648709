"""Keyed numbers: pure functions, well spread."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.randomness.keys import permutation, random_key
from alexnet.randomness.tensors import normal, random_bits

words = st.one_of(st.integers(0, 2**64 - 1), st.text(max_size=8))


@given(st.lists(words, min_size=1, max_size=4), st.lists(words, min_size=1, max_size=4))
def test_other_words_or_another_order_give_another_key(first: list[int | str], second: list[int | str]) -> None:
    assert (random_key(*first) == random_key(*second)) == (first == second)


@settings(max_examples=25)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 50), st.integers(1, 50))
def test_bits_of_a_place_do_not_depend_on_what_else_is_asked(k: int, first: int, rows: int, cols: int) -> None:
    whole = random_bits(k, torch.arange(first, first + rows), torch.arange(cols))
    last = random_bits(k, torch.tensor([first + rows - 1]), torch.tensor([cols - 1]))
    assert whole[-1, -1] == last[0, 0]
    assert 0 <= whole.min() <= whole.max() < 2**32


def test_bits_are_even_and_uncorrelated() -> None:
    keep = (random_bits(random_key(1, "fc6"), torch.arange(512), torch.arange(2048)) >= 2**31).double()
    assert abs(keep.mean().item() - 0.5) < 0.002
    assert abs(keep.mean(0).std().item() - 0.5 / 512**0.5) < 0.001
    assert abs(keep.mean(1).std().item() - 0.5 / 2048**0.5) < 0.001
    centered = keep - keep.mean()
    for lag in (1, 2, 17, 512):
        assert abs((centered[:, lag:] * centered[:, :-lag]).mean().item()) < 0.001
        assert abs((centered[lag % 512 :] * centered[: 512 - lag % 512]).mean().item()) < 0.001 or lag == 512


def test_normal_numbers_are_normal() -> None:
    drawn = normal(random_key(1, "noise"), torch.arange(100_000), 3)
    assert torch.allclose(drawn.mean(0), torch.zeros(3, dtype=torch.float64), atol=0.01)
    assert torch.allclose(drawn.std(0), torch.ones(3, dtype=torch.float64), atol=0.01)
    assert torch.allclose((drawn**4).mean(0), torch.full((3,), 3.0, dtype=torch.float64), atol=0.1)
    assert torch.corrcoef(drawn.T).fill_diagonal_(0).abs().max() < 0.01


@given(st.integers(0, 2**64 - 1), st.integers(0, 300))
def test_a_permutation_holds_every_index_once(k: int, count: int) -> None:
    assert np.array_equal(np.sort(permutation(k, count)), np.arange(count))


def test_permutations_of_other_keys_differ() -> None:
    assert not np.array_equal(permutation(1, 100), permutation(2, 100))


def test_the_numbers_never_change() -> None:
    """A change here would change every model; it must say so."""
    assert random_key(1, "order", 0) == 1826060742504453323
    assert permutation(random_key(1, "order", 0), 8).tolist() == [1, 5, 7, 0, 6, 3, 4, 2]
    assert random_bits(random_key(1), torch.arange(1), torch.arange(3)).tolist() == [[2509276643, 3803720896, 1733692921]]
