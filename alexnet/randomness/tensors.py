"""Random tensors as pure functions of a key: the same on any device and for any split of the work, with no state to save.

Each function draws a number for every pair of a row, such as a sample's global index, and a column.
"""

import functools

import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from alexnet.ops.compile import compile_on_gpu

_MASK_32 = (1 << 32) - 1

Key = int | Int64[Tensor, "2"]  # of 64 bits; as a tensor its halves, the lower first, so that a kernel can read it


def _mix_32(words: Tensor) -> Tensor:
    """murmur3's finalizer on 32-bit values in int64: integers only, so every device agrees."""
    words = ((words ^ (words >> 16)) * 0x85EBCA6B) & _MASK_32
    words = ((words ^ (words >> 13)) * 0xC2B2AE35) & _MASK_32
    return words ^ (words >> 16)


def halves(key: int) -> list[int]:
    """The lower and the higher 32 bits."""
    return [key & _MASK_32, key >> 32]


def random_bits(key: Key, rows: Int64[Tensor, " n"], cols: Int64[Tensor, " m"]) -> Int64[Tensor, "n m"]:
    """32 random bits for every row and column."""
    low, high = halves(key) if isinstance(key, int) else key.unbind()
    row_words = _mix_32(_mix_32((rows + low) & _MASK_32) ^ high)
    col_words = _mix_32((cols * 0x9E3779B1 + high) & _MASK_32)
    return _mix_32(row_words[:, None] ^ col_words[None, :] ^ low)


def mask_words(key: int, rows: Int64[Tensor, " n"]) -> Int64[Tensor, " words"]:
    """The halves of a key and the rows, as `dropout_mask` reads them: as a plain number, every key would be compiled anew."""
    return torch.cat([torch.tensor(halves(key)), rows])


def dropout_mask(words: Int64[Tensor, " words"], cols: range, rate: float, device: torch.device) -> Bool[Tensor, "n m"]:
    """A mask on the device, False with probability `rate`. The words are on the CPU or already there."""
    return compile_on_gpu(_mask, device)(copy_to_device(words, device), _columns(cols, device), int(rate * 2**32))


def _mask(words: Tensor, cols: Tensor, threshold: int) -> Tensor:
    return random_bits(words[:2], words[2:], cols) >= threshold


@functools.cache
def _columns(cols: range, device: torch.device) -> Int64[Tensor, " m"]:
    """The columns on the device. Within the compiled function an arange is int32, too small for _bits' constants."""
    return torch.arange(cols.start, cols.stop, device=device)


def copy_to_device(values: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor copied to the device without waiting for the work queued there."""
    if device.type != "cuda" or values.device == device:
        return values
    return values.pin_memory().to(device, non_blocking=True)


def uniform(key: Key, rows: Int64[Tensor, " n"], cols: Int64[Tensor, " m"]) -> Float64[Tensor, "n m"]:
    """Numbers in (0, 1)."""
    return (random_bits(key, rows, cols).double() + 0.5) / 2**32


def random_integers(key: Key, rows: Int64[Tensor, " n"], cols: Int64[Tensor, " m"], limit: int) -> Int64[Tensor, "n m"]:
    """Integers in 0..limit-1; limit is far below 2**32, and so is the bias."""
    return (random_bits(key, rows, cols) * limit) >> 32


def normal(keys: tuple[Key, Key], rows: Int64[Tensor, " n"], cols: Int64[Tensor, " m"]) -> Float64[Tensor, "n m"]:
    """Standard normal numbers, each of a uniform one by either key (Box-Muller)."""
    first, second = (uniform(key, rows, cols) for key in keys)
    return torch.sqrt(-2 * torch.log(first)) * torch.cos(2 * torch.pi * second)
