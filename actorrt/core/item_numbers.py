"""The numbers of streamed items that lie in shared memory: each is an object of the caller's, who counts them.

Each time that a streaming call is sent, it is a *run* with a range of numbers of its own, and its producer numbers the
large items from the first number on, one after the other. Other objects of an owner have numbers below all of these.
"""

from __future__ import annotations

from typing import Final

# The first bit of 64 says that it is an item; how many of the rest say which item of its run.
_ITEM: Final = 1 << 63
_INDEX_BITS: Final = 28
RUNS: Final = 1 << (63 - _INDEX_BITS)
"""So many runs of an owner have ranges of their own; then the numbers begin anew."""


def first_item(run: int) -> int:
    """The number of the first large item of a run."""
    return _ITEM | run % RUNS << _INDEX_BITS


def run_of(number: int) -> int | None:
    """Which run an object is an item of; None if it is no item."""
    return (number ^ _ITEM) >> _INDEX_BITS if number & _ITEM else None


def next_item(number: int) -> int:
    """The number of the next large item of the same run."""
    run = run_of(number)
    if run is None:
        raise ValueError(f"{number} is not the number of an item")
    return first_item(run) | (number + 1) & ((1 << _INDEX_BITS) - 1)
