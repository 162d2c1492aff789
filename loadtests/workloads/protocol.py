"""How a workload speaks with compare.py, and how it takes time. Standard library only: it runs in every environment.

A line `@asks memory` on standard output is answered with one line of JSON on standard input; `@gives {...}` carries
the figures and ends the talk. All else on standard output is the side's own chatter.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ASKS_MEMORY = "@asks memory"
GIVES = "@gives "


@dataclass(frozen=True, slots=True)
class Effort:
    """How long to measure: `samples` stretches of `seconds` each, of which the median counts."""

    side: str
    seconds: float
    samples: int
    quick: bool


def parse_arguments(description: str | None) -> Effort:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("side")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--samples", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    return Effort(given.side, given.seconds, given.samples, given.quick)


def rate(batch: Callable[[], object], size: int, effort: Effort, *, most: int = 100_000) -> float:
    """How many a second: `batch` does `size` of them; it runs once to warm up, then at most `most` times a sample."""
    batch()
    warm_until = time.perf_counter() + effort.seconds / 2
    for _ in range(most):
        if time.perf_counter() >= warm_until:
            break
        batch()
    samples: list[float] = []
    for _ in range(effort.samples):
        begin = time.perf_counter()
        for done in range(1, most + 1):
            batch()
            passed = time.perf_counter() - begin
            if passed >= effort.seconds or done == most:
                samples.append(done * size / passed)
                break
    return statistics.median(samples)


def memory() -> Mapping[str, int]:
    """Bytes `pss` and `private` of all processes of this side, this one among them, and their number."""
    print(ASKS_MEMORY, flush=True)
    answer: Mapping[str, int] = json.loads(sys.stdin.readline())
    return answer


def give(**figures: float) -> None:
    """Hand the figures over; `__` in a name stands for the dot."""
    print(GIVES + json.dumps({name.replace("__", "."): value for name, value in figures.items()}), flush=True)
