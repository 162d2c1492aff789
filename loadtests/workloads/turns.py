"""Batches of something, one for each line of standard input: the answer is a line with the seconds that it took."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Final

from loadtests.peers.chosen import calls, tasks

# By name: how many make a batch, and what does so many.
BATCHES: Final[Mapping[str, int]] = {"calls": 100, "calls_in_flight": 1000, "tasks": 50, "tasks_in_flight": 1000}


def main() -> None:
    side, name = sys.argv[1:]
    with ExitStack() as stack:
        batch, size = _batch(side, name, stack), BATCHES[name]
        for _ in range(5):
            batch(size)
        print(0.0, flush=True)
        for _ in sys.stdin:
            begin = time.perf_counter()
            batch(size)
            print(time.perf_counter() - begin, flush=True)


def _batch(side: str, name: str, stack: ExitStack) -> Callable[[int], object]:
    peer = stack.enter_context(calls(side) if name.startswith("calls") else tasks(side))
    return peer.in_flight if name.endswith("in_flight") else peer.one_at_a_time


if __name__ == "__main__":
    main()
