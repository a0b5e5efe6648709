"""Keys and permutations: pure functions, in numbers that never change."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from alexnet.randomness.keys import permutation, random_key

words = st.one_of(st.integers(0, 2**64 - 1), st.text(max_size=8))


@given(st.lists(words, min_size=1, max_size=4), st.lists(words, min_size=1, max_size=4))
def test_other_words_or_another_order_give_another_key(first: list[int | str], second: list[int | str]) -> None:
    assert (random_key(*first) == random_key(*second)) == (first == second)


@given(st.integers(0, 2**64 - 1), st.integers(0, 300))
def test_a_permutation_holds_every_index_once(k: int, count: int) -> None:
    assert np.array_equal(np.sort(permutation(k, count)), np.arange(count))


def test_permutations_of_other_keys_differ() -> None:
    assert not np.array_equal(permutation(1, 100), permutation(2, 100))


def test_the_numbers_never_change() -> None:
    """A change here would change every model; it must say so."""
    assert random_key(1, "order", 0) == 1826060742504453323
    assert permutation(random_key(1, "order", 0), 8).tolist() == [1, 5, 7, 0, 6, 3, 4, 2]
