"""Giving freed memory back to the system: what makes the peak of a run flat."""

from __future__ import annotations

import ctypes
import os

_MMAP_THRESHOLD, _ARENA_MAX = -3, -8
_LARGE_BYTES = 256 * 1024


def keep_small() -> None:
    """Call before anything heavy is imported. Does nothing where the C library is not glibc.

    Measured on runs of 20,000 and 200,000 rows: 273 and 392 MB at the peak with Arrow's own allocator, 195 and 253
    with glibc's as it comes, 163 and 179 like this: large blocks are mapped and unmapped one by one, and threads
    share one arena instead of fragmenting one each.
    """
    os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_ARENA_MAX, 1)
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
