"""Counters and histograms as plain numbers: cheap to add to and to send. How they are shown is another matter.

A value of a label comes from a client at times; after `MOST_VALUES` of them all further ones are "other".
"""

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

Labels = tuple[str, ...]

MOST_VALUES: Final = 1000
OTHER: Final = "other"


class Bounded:
    """Values of a label, up to a number of them."""

    def __init__(self, most: int = MOST_VALUES) -> None:
        self._most = most
        self._known: set[str] = set()

    def __call__(self, value: str) -> str:
        if value in self._known:
            return value
        if len(self._known) >= self._most:
            return OTHER
        self._known.add(value)
        return value


class Histogram:
    """How many values lie at or below each bound and above the one before; the last count is of those above all."""

    __slots__ = ("bounds", "series")

    def __init__(self, bounds: Iterable[float]) -> None:
        self.bounds = tuple(bounds)
        self.series: dict[Labels, tuple[list[int], list[float]]] = {}

    def add(self, labels: Labels, value: float) -> None:
        found = self.series.get(labels)
        if found is None:
            found = self.series[labels] = ([0] * (len(self.bounds) + 1), [0.0])
        counts, total = found
        counts[bisect_left(self.bounds, value)] += 1
        total[0] += value


class Counter:
    """Also for what goes down again, where a sum over processes has a meaning."""

    __slots__ = ("series",)

    def __init__(self) -> None:
        self.series: dict[Labels, float] = {}

    def add(self, labels: Labels, value: float = 1) -> None:
        self.series[labels] = self.series.get(labels, 0) + value
