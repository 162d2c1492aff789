"""What this process's allocator does with large blocks that are freed."""

from __future__ import annotations

import contextlib
import os
from typing import Final

# From glibc's malloc.h.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
LARGEST_BYTES: Final = 16 * 1024 * 1024
# Two of almost that size: the next body comes while the one before is still in use.
KEPT_BYTES: Final = 32 * 1024 * 1024

_asked: list[bool] = []


def keep_large_blocks() -> None:
    """Have blocks of up to LARGEST_BYTES reused, and up to KEPT_BYTES kept for that when they are freed.

    glibc gives such blocks back to the system, and a page fault for each page of the next one costs more than to fill
    it. Whoever has set its thresholds by the environment keeps his own; other libraries are left alone.
    """
    if _asked or "MALLOC_MMAP_THRESHOLD_" in os.environ or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return
    _asked.append(True)
    # Here, since it costs milliseconds that few need.
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, LARGEST_BYTES)
        mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES)
