"""Heap: the memory of a step, kept for the next one.

The C library of Linux gives large blocks back to the system when they are freed and asks for
them anew, and every page of a new block is cleared when it is first touched: for every step again.
glibc can be told to keep what it has (mallopt(3): M_MMAP_MAX, M_TRIM_THRESHOLD). What it gives is
measured by `benchmarks/peers.py --without heap`.
"""

import ctypes
import sys
from contextlib import suppress

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h of glibc


def keep() -> bool:
    """Let this process keep freed memory from now on; whether its C library can."""
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.gnu_get_libc_version  # noqa: B018 - musl has none, and another mallopt
        return bool(libc.mallopt(M_MMAP_MAX, 0) and libc.mallopt(M_TRIM_THRESHOLD, -1))
    return False
