"""`make simulate`: many seeded histories, or one of them with its story."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from typing import Final

from .histories import Outcome, history

# So many seeds are one piece of work.
PIECE: Final = 20
# The last lines of a story that explain a failure; SEED=n tells all of it.
TOLD_LINES: Final = 120
TELL_EVERY_S: Final = 5.0

# What is counted, in the order in which it is told.
_KINDS: Final = {
    "calls": "calls",
    "values": "values",
    "raised": "errors of their own",
    "cancelled": "cancelled",
    "late": "late",
    "streams": "streams",
    "messages": "messages",
    "cuts": "cuts",
    "breaks": "ends of links that broke",
    "resumes": "resumed",
    "partitions": "partitions",
    "stops": "stops",
    "slow": "slow processes",
    "crashes": "crashes",
}


def _piece(seeds: list[int]) -> tuple[Counter[str], list[int], int]:
    """Run some seeds: what happened in them, which of them failed, and how many turns they took."""
    counts: Counter[str] = Counter()
    failed: list[int] = []
    turns = 0
    for seed in seeds:
        outcome = history(seed)
        counts += outcome.counts
        turns += outcome.turns
        if outcome.broken:
            failed.append(seed)
    return counts, failed, turns


def _in_words(counts: Counter[str]) -> str:
    told = [f"{counts[kind]:,} {words}" for kind, words in _KINDS.items() if counts[kind]]
    told += [f"{count:,} {kind}" for kind, count in sorted(counts.items()) if kind not in _KINDS]
    return ", ".join(told)


def _tell(outcome: Outcome, whole: bool) -> None:
    print(outcome.story(0 if whole else TOLD_LINES))
    print(f"\nseed {outcome.seed}: {outcome.turns:,} turns, {outcome.virtual_s:.3f} s of virtual time")
    print(_in_words(outcome.counts))
    for broken in outcome.broken:
        print(f"BROKEN: {broken}")


def _one(seed: int) -> int:
    outcome = history(seed)
    _tell(outcome, whole=True)
    return 1 if outcome.broken else 0


def _many(first: int, count: int, workers: int) -> int:
    began = told = time.monotonic()
    counts: Counter[str] = Counter()
    failed: list[int] = []
    done = turns = 0
    pieces = [list(range(at, min(at + PIECE, first + count))) for at in range(first, first + count, PIECE)]
    with ProcessPoolExecutor(workers) as pool:
        left: set[Future[tuple[Counter[str], list[int], int]]] = {pool.submit(_piece, piece) for piece in pieces}
        while left and not failed:
            ended, left = wait(left, timeout=TELL_EVERY_S, return_when=FIRST_COMPLETED)
            for future in ended:
                more, bad, its_turns = future.result()
                counts += more
                failed += bad
                turns += its_turns
            done = len(pieces) - len(left)
            if time.monotonic() - told >= TELL_EVERY_S:
                told = time.monotonic()
                print(f"{min(done * PIECE, count):6,} of {count:,} seeds, {told - began:5.1f} s", flush=True)
        for future in left:
            future.cancel()
    took = time.monotonic() - began
    print(f"{min(done * PIECE, count):6,} of {count:,} seeds, {took:5.1f} s, {turns:,} turns of loops")
    print(_in_words(counts))
    if not failed:
        print("all promises kept")
        return 0
    seed = min(failed)
    print(f"\nthese failed: {', '.join(map(str, sorted(failed)))}. The end of the story of seed {seed}:\n")
    _tell(history(seed), whole=False)
    print(f"\nmake simulate SEED={seed} tells all of it")
    return 1


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m actorrt.testing", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many histories (default: %(default)s)")
    parser.add_argument("--first", type=int, default=0, help="the first seed (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=2, help="processes that run them (default: %(default)s)")
    # `make simulate SEED=n`, and what the story of a failure says.
    parser.add_argument(
        "--seed",
        type=int,
        default=os.environ.get("SEED"),
        help="run this one alone and tell its story (default: $SEED)",
    )
    chosen = parser.parse_args(arguments)
    return _many(chosen.first, chosen.seeds, chosen.workers) if chosen.seed is None else _one(chosen.seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
