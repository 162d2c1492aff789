"""The line that has most tokens to spare, of those that could hold a request: it will fit it soonest.

Nothing is sorted as lines change, which is always; only who asks has the lines sorted in that have changed since.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Final, Generic, Protocol, TypeVar

# Of lines with tokens to spare that could not hold the request, so many are passed before all are looked at.
_LOOKS: Final = 64
_BITS: Final = 32
_NUMBER: Final = (1 << _BITS) - 1


class SpareLine(Protocol):
    number: int
    used: int
    fill_tokens: int
    kv_tokens: int
    is_open: bool


L = TypeVar("L", bound=SpareLine)


def _key(line: SpareLine) -> int:
    return (line.used - line.fill_tokens) << _BITS | line.number


class SpareIndex(Generic[L]):
    def __init__(self) -> None:
        self._lines: dict[int, L] = {}
        self._changed: set[int] = set()
        # Entries that are not true any more are passed over.
        self._heap: list[int] = []

    def put(self, line: L) -> None:
        """A line is new, or has changed."""
        self._lines[line.number] = line
        self._changed.add(line.number)

    def changed(self, number: int) -> None:
        """A line that is there takes more or less by now."""
        self._changed.add(number)

    def take(self, line: L) -> None:
        """A line is gone."""
        self._lines.pop(line.number, None)

    def soonest(self, tokens: int) -> L | None:
        """The open line with most tokens to spare that can ever hold so many; None if there is none."""
        lines, heap = self._lines, self._heap
        if len(heap) + len(self._changed) > 3 * len(lines) + _LOOKS:
            heap[:] = map(_key, lines.values())
            heapify(heap)
        else:
            for number in self._changed:
                if (line := lines.get(number)) is not None:
                    heappush(heap, _key(line))
        self._changed.clear()
        passed: list[int] = []
        found: L | None = None
        while heap and len(passed) < _LOOKS:
            line = lines.get(heap[0] & _NUMBER)
            if line is None or _key(line) != heap[0]:
                heappop(heap)
                continue
            if line.is_open and line.kv_tokens >= tokens:
                found = line
                break
            passed.append(heappop(heap))
        for key in passed:
            heappush(heap, key)
        if found is None and passed:
            able = (line for line in lines.values() if line.is_open and line.kv_tokens >= tokens)
            found = min(able, key=_key, default=None)
        return found
