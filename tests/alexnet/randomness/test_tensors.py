"""Random tensors: pure functions of a key, well spread."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from alexnet.randomness.keys import random_key
from alexnet.randomness.tensors import dropout_mask, halves, mask_words, normal, random_bits, random_integers, uniform


@settings(max_examples=25)
@given(st.integers(0, 2**64 - 1), st.integers(0, 2**40), st.integers(1, 50), st.integers(1, 50))
def test_bits_of_a_place_do_not_depend_on_what_else_is_asked(k: int, first: int, rows: int, cols: int) -> None:
    whole = random_bits(k, torch.arange(first, first + rows), torch.arange(cols))
    last = random_bits(k, torch.tensor([first + rows - 1]), torch.tensor([cols - 1]))
    assert whole[-1, -1] == last[0, 0]
    assert torch.equal(random_bits(torch.tensor(halves(k)), torch.arange(first, first + rows), torch.arange(cols)), whole)
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
    drawn = normal((random_key(1, "noise"), random_key(2, "noise")), torch.arange(100_000), torch.arange(3))
    assert torch.allclose(drawn.mean(0), torch.zeros(3, dtype=torch.float64), atol=0.01)
    assert torch.allclose(drawn.std(0), torch.ones(3, dtype=torch.float64), atol=0.01)
    assert torch.allclose((drawn**4).mean(0), torch.full((3,), 3.0, dtype=torch.float64), atol=0.1)
    assert torch.corrcoef(drawn.T).fill_diagonal_(0).abs().max() < 0.01


def test_uniform_numbers_integers_and_masks_are_made_of_the_bits() -> None:
    rows, cols = torch.arange(50), torch.arange(40)
    bits = random_bits(7, rows, cols)
    assert torch.equal(uniform(7, rows, cols), (bits.double() + 0.5) / 2**32)
    assert torch.equal(random_integers(7, rows, cols, 33), bits * 33 // 2**32)
    assert torch.equal(dropout_mask(mask_words(7, rows), range(8, 40), 0.25, torch.device("cpu")), bits[:, 8:] >= 2**30)


def test_the_numbers_never_change() -> None:
    """A change here would change every model; it must say so."""
    assert random_bits(random_key(1), torch.arange(1), torch.arange(3)).tolist() == [[2509276643, 3803720896, 1733692921]]
