"""Memory of large tensors, kept by the process between steps."""

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of glibc's malloc.h
_MOST = 2**31 - 1
_GROW_BYTES = 256 << 20


def keep_freed() -> bool:
    """Has freed memory stay with this process; returns whether the C library can be told to (glibc's can).

    A step frees and takes again the same large tensors. By default each of them is mapped anew, and the kernel clears every
    page of it at its first touch: a fifth of a training step on a CPU. The peak is the same; only it stays.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, _MOST), (_TOP_PAD, _GROW_BYTES))
    return all(mallopt(name, value) == 1 for name, value in settings)
