"""What the C library does with the memory that Python gives back (glibc; mallopt(3))."""

import ctypes

MMAP_THRESHOLD = -3
"""The name of the setting, in malloc.h."""
LARGE_BYTES = 64 << 10


def keep_large_blocks_apart() -> None:
    """Have blocks of `LARGE_BYTES` and more made outside the heap for good, so that they leave no holes in it.

    glibc raises its own limit (128 kB) to the size of each such block that is freed. In a daemon that reads streams of
    lines the next ones then lie in the heap, small ones that stay come to lie behind them, and the heap grows though
    nothing is kept. With another C library nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(MMAP_THRESHOLD, LARGE_BYTES)
