"""Batches of something, one for each line of standard input: the answer is a line with the seconds that it took."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Any, Final

from loadtests.peers.chosen import calls, tasks
from loadtests.peers.ray_like import running, small_task

# By name: how many make a batch, and what does so many.
BATCHES: Final[Mapping[str, int]] = {
    "calls": 100, "calls_in_flight": 1000, "tasks": 50, "tasks_in_flight": 1000, "puts": 1000, "gets": 1000,
    "waits": 200,
}  # fmt: skip


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
    if name in ("puts", "gets", "waits"):
        return _of_objects(stack.enter_context(running(side)), name)
    peer = stack.enter_context(calls(side) if name.startswith("calls") else tasks(side))
    return peer.in_flight if name.endswith("in_flight") else peer.one_at_a_time


def _of_objects(api: Any, name: str) -> Callable[[int], object]:
    value, task = api.put(0), small_task(api)

    def puts(size: int) -> None:
        for _ in range(size):
            api.put(0)

    def gets(size: int) -> None:
        for _ in range(size):
            api.get(value)

    def waits(size: int) -> None:
        """So many tasks are submitted and waited on one by one, as in objects.py."""
        waiting = [task.remote() for _ in range(size)]
        while waiting:
            _, waiting = api.wait(waiting)

    return {"puts": puts, "gets": gets, "waits": waits}[name]


if __name__ == "__main__":
    main()
