"""Keys made of words, and permutations by them: what needs no torch, so that a stage that does not train starts quickly."""

import numpy as np
from jaxtyping import Int64, UInt64

_MASK_64 = (1 << 64) - 1


def _mix_64(word: int) -> int:
    """splitmix64's output function."""
    word = (word + 0x9E3779B97F4A7C15) & _MASK_64
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return word ^ (word >> 31)


def key(*words: int | str) -> int:
    """64 bits that depend on every word and on their order."""
    state = 0
    for word in words:
        parts = word.encode() if isinstance(word, str) else (word,)
        state = _mix_64(state ^ len(parts))
        for part in parts:
            state = _mix_64(state ^ (part & _MASK_64))
    return state


def permutation(k: int, count: int) -> Int64[np.ndarray, " count"]:
    """A permutation of 0..count-1: the indices in the order of their random words, ties by index."""
    return np.argsort(_words(k, count), kind="stable")


def _words(k: int, count: int) -> UInt64[np.ndarray, " count"]:
    """splitmix64's output for `count` successive states."""
    with np.errstate(over="ignore"):
        word = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(k)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))
