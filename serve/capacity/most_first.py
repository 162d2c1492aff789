"""Lines in the order of some number, the largest first, sorted only when somebody asks.

Lines change all the time, and who asks is rare: what has changed meanwhile is sorted in then. So a change costs next
to nothing, and a question about as much as there were changes since the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

# Of lines that are not as wanted, so many are passed before it is given up.
LOOKS: Final = 64
_BITS: Final = 32
_NUMBER: Final = (1 << _BITS) - 1


class Numbered(Protocol):
    number: int


L = TypeVar("L", bound=Numbered)


class MostFirst(Generic[L]):
    def __init__(self, key: Callable[[L], int]) -> None:
        self._key = key
        self._lines: dict[int, L] = {}
        self._changed: set[int] = set()
        # Entries that are not true any more are passed over: minus the key, above the line's number.
        self._heap: list[int] = []

    def put(self, line: L) -> None:
        """A line is new."""
        self._lines[line.number] = line
        self._changed.add(line.number)

    def changed(self, line: L) -> None:
        """A line that is there has another number by now, maybe."""
        self._changed.add(line.number)

    def take(self, line: L) -> None:
        """A line is gone."""
        self._lines.pop(line.number, None)

    def _entry(self, line: L) -> int:
        return -self._key(line) << _BITS | line.number

    def _settle(self) -> L | None:
        """The first line."""
        lines, heap = self._lines, self._heap
        if self._changed:
            if len(heap) + len(self._changed) > 3 * len(lines) + LOOKS:
                heap[:] = map(self._entry, lines.values())
                heapify(heap)
            else:
                for number in self._changed:
                    if (line := lines.get(number)) is not None:
                        heappush(heap, self._entry(line))
            self._changed.clear()
        while heap:
            line = lines.get(heap[0] & _NUMBER)
            if line is not None and self._entry(line) == heap[0]:
                return line
            heappop(heap)
        return None

    @property
    def most(self) -> int:
        """The largest number; -1 without lines."""
        line = self._settle()
        return -1 if line is None else self._key(line)

    def first(self, is_wanted: Callable[[L], bool], least: int | None = None) -> L | None:
        """The first that is wanted and has `least`, if there is one among the first `LOOKS`."""
        passed: list[int] = []
        found: L | None = None
        seen: set[int] = set()
        while len(seen) < LOOKS and (line := self._settle()) is not None:
            if least is not None and self._key(line) < least:
                break
            if line.number not in seen and is_wanted(line):
                found = line
                break
            if line.number not in seen:
                seen.add(line.number)
                passed.append(self._heap[0])
            heappop(self._heap)
        for entry in passed:
            heappush(self._heap, entry)
        return found
