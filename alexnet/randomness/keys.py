"""64-bit keys for random numbers, and permutations. Without torch, so that a stage that does not train starts quickly."""

import numpy as np
from jaxtyping import Int64, UInt64

_MASK_64 = (1 << 64) - 1


def _mix_64(word: int) -> int:
    """splitmix64's output function."""
    word = (word + 0x9E3779B97F4A7C15) & _MASK_64
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & _MASK_64
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & _MASK_64
    return word ^ (word >> 31)


def random_key(*words: int | str) -> int:
    """A hash of 64 bits that depends on every word and on their order, such as (seed, purpose, epoch)."""
    state = 0
    for word in words:
        parts = word.encode() if isinstance(word, str) else (word,)
        state = _mix_64(state ^ len(parts))
        for part in parts:
            state = _mix_64(state ^ (part & _MASK_64))
    return state


def permutation(key: int, count: int) -> Int64[np.ndarray, " count"]:
    """A random permutation of 0..count-1."""
    return np.argsort(_words(key, count), kind="stable")


def _words(key: int, count: int) -> UInt64[np.ndarray, " count"]:
    """splitmix64's output for `count` successive states."""
    with np.errstate(over="ignore"):
        word = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15) + np.uint64(key)
        word = (word ^ (word >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        word = (word ^ (word >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return word ^ (word >> np.uint64(31))
