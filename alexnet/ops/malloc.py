"""The C library's settings for the memory of large tensors."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_MAX_INT = 2**31 - 1
_GROW_BYTES = 256 << 20


def disable_malloc_trim() -> bool:
    """Keeps freed memory in this process for its next allocations; False where the C library is not glibc.

    A step frees and allocates the same large tensors. By default each is mapped anew, and the kernel clears every page of it at
    its first touch: a fifth of a training step on a CPU. The peak of memory stays the same.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MAX_INT), (_TOP_PAD, _GROW_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)


def trim_malloc() -> None:
    """Gives what is kept and not in use back to the system, once; does nothing where the C library is not glibc."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
