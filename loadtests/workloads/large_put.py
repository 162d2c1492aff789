# pyright: basic, reportMissingImports=false
"""Put of an 800 MB array: the first one of a fresh process, and the median of those that follow.

Each ref is dropped before the next put. The array is written to first: copying from untouched pages, all of them one
zero page in the cache, would measure something else. `memcpy` is the limit: a copy into private anonymous memory that
no page of has been touched, and into the same memory again.
"""

import mmap
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from loadtests.workloads.protocol import give, parse_arguments

_ITEMS = 100 * 1024 * 1024


def timed(action: Callable[[], object]) -> float:
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def measure(put: Callable[[Any], object], array: Any, repeats: int) -> tuple[float, float]:
    """GB/s of the first put and the median of the later ones."""
    gigabytes = array.nbytes / 1e9
    first = timed(lambda: put(array))
    later = [timed(lambda: put(array)) for _ in range(repeats)]
    return gigabytes / first, gigabytes / statistics.median(later)


def main() -> None:
    effort = parse_arguments(__doc__)
    repeats = 3 if effort.quick else 7
    array = np.arange(_ITEMS, dtype=np.int64)
    if effort.side == "memcpy":
        memory = mmap.mmap(-1, array.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        target = np.frombuffer(memory, dtype=np.int64)
        first, later = measure(lambda source: np.copyto(target, source), array, repeats)
    else:
        from loadtests.peers.ray_like import running

        with running(effort.side) as api:
            api.get(api.put(b"the first object of all starts what has to be started"))
            first, later = measure(api.put, array, repeats)
    give(large__first=first, large__repeated=later)


if __name__ == "__main__":
    main()
