"""Random numbers as a pure function of a key: the same on any device, for any split of the work, with nothing to save.

A key is made of words such as (seed, epoch, purpose); `bits` then gives 32 bits for every (row, column).
"""

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from alexnet.ops.compile import fused
from alexnet.randomness.keys import key, permutation

__all__ = ["below", "bits", "kept", "key", "normal", "permutation", "sent", "uniform"]

_MASK_32 = (1 << 32) - 1


def _mix_32(words: Tensor) -> Tensor:
    """murmur3's finalizer on 32-bit values held in int64: integers only, so every device agrees."""
    words = ((words ^ (words >> 16)) * 0x85EBCA6B) & _MASK_32
    words = ((words ^ (words >> 13)) * 0xC2B2AE35) & _MASK_32
    return words ^ (words >> 16)


def bits(k: int, rows: Int64[Tensor, " n"], cols: Int64[Tensor, " m"]) -> Int64[Tensor, "n m"]:
    """32 random bits for every pair of global row and column index."""
    return _bits(k & _MASK_32, k >> 32, rows, cols)


def _bits(low: int | Tensor, high: int | Tensor, rows: Tensor, cols: Tensor) -> Tensor:
    row_words = _mix_32(_mix_32((rows + low) & _MASK_32) ^ high)
    col_words = _mix_32((cols * 0x9E3779B1 + high) & _MASK_32)
    return _mix_32(row_words[:, None] ^ col_words[None, :] ^ low)


def kept(k: int, rows: Int64[Tensor, " n"], cols: range, rate: float, device: torch.device) -> Bool[Tensor, "n m"]:
    """Which places stay when each is dropped at this rate. The rows are on the host, the answer is on the device.

    The key goes there with the rows, as numbers of a tensor: as a plain number, every key would be compiled anew.
    """
    words = sent(torch.cat([torch.tensor([k & _MASK_32, k >> 32]), rows]), device)
    return fused(_kept, device)(words, cols.start, cols.stop, int(rate * 2**32))


def _kept(words: Tensor, first: int, last: int, threshold: int) -> Tensor:
    cols = torch.arange(first, last, device=words.device)
    return _bits(words[0], words[1], words[2:], cols) >= threshold


def sent(values: Tensor, device: torch.device) -> Tensor:
    """The host's values on the device, without a wait for what it is computing."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values


def uniform(k: int, rows: Int64[Tensor, " n"], count: int) -> Tensor:
    """Float64 numbers in (0, 1), `count` for every row."""
    cols = torch.arange(count, device=rows.device)
    return (bits(k, rows, cols).double() + 0.5) / 2**32


def below(k: int, rows: Int64[Tensor, " n"], count: int, limit: int) -> Int64[Tensor, "n m"]:
    """Integers in 0..limit-1, `count` for every row (limit far below 2**32, so that the bias is too)."""
    cols = torch.arange(count, device=rows.device)
    return (bits(k, rows, cols) * limit) >> 32


def normal(k: int, rows: Int64[Tensor, " n"], count: int) -> Tensor:
    """Standard normal float64 numbers, `count` for every row (Box-Muller)."""
    first = uniform(key(k, 1), rows, count)
    second = uniform(key(k, 2), rows, count)
    return torch.sqrt(-2 * torch.log(first)) * torch.cos(2 * torch.pi * second)
