"""The lines that could admit a request, without a look at each of them.

Lines lie in cells: those with the same number of running requests and, by powers of two, the same room. Within a cell
they are sorted by the prompts that wait to be read there. So the head of each cell with more room than needed admits
the request, and is the best of its cell; only in the cells whose room is of the order of what is needed, lines that do
not admit it lie among those that do.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import Final, Generic, Protocol, TypeVar

# In a cell where not all lines admit the request, so many are looked at before another cell is.
LOOKS: Final = 4


class IndexedLine(Protocol):
    number: int
    running: int
    backlog: int

    @property
    def free(self) -> int: ...

    def admits(self, tokens: int, share: float = 1.0) -> bool: ...


L = TypeVar("L", bound=IndexedLine)
# A line within its cell: its backlog, and its number.
_Place = tuple[int, int]
_Cell = tuple[int, int]


class LineIndex(Generic[L]):
    def __init__(self) -> None:
        # Lines that admit something, by number.
        self._lines: dict[int, L] = {}
        # By running requests and size of the room.
        self._cells: dict[_Cell, list[_Place]] = {}
        self._places: dict[int, tuple[_Cell, _Place]] = {}
        self.looks = 0

    def put(self, line: L) -> None:
        """A line is new, or has changed."""
        free = line.free
        if free < 0:
            self.take(line)
            return
        cell, place = (line.running, free.bit_length()), (line.backlog, line.number)
        before = self._places.get(line.number)
        if before == (cell, place):
            return
        if before is not None:
            self._remove(*before)
        self._lines[line.number] = line
        self._places[line.number] = cell, place
        insort(self._cells.setdefault(cell, []), place)

    def take(self, line: L) -> None:
        """A line is gone, or admits nothing now."""
        before = self._places.pop(line.number, None)
        if before is not None:
            del self._lines[line.number]
            self._remove(*before)

    def _remove(self, cell: _Cell, place: _Place) -> None:
        places = self._cells[cell]
        del places[bisect_left(places, place)]
        if not places:
            del self._cells[cell]

    def candidates(self, tokens: int, share: float = 1.0, chance: float = 0.0) -> Iterator[L]:
        """The least busy line of each cell that admits so many tokens. If any line does, there is one."""
        size = tokens.bit_length()
        found = False
        unsure: list[list[_Place]] = []
        for (_, room), places in self._cells.items():
            if room < size:
                continue
            line = self._first(places, tokens, share, chance)
            if line is not None:
                found = True
                yield line
            elif len(places) > LOOKS:
                unsure.append(places)
        if found:
            return
        for places in unsure:
            for _, number in places:
                self.looks += 1
                line = self._lines[number]
                if line.admits(tokens, share):
                    yield line
                    break

    def _first(self, places: list[_Place], tokens: int, share: float, chance: float) -> L | None:
        if chance and (equal := bisect_right(places, (places[0][0], 2**62))) > 1:
            self.looks += 1
            line = self._lines[places[int(chance * equal)][1]]
            if line.admits(tokens, share):
                return line
        for _, number in places[:LOOKS]:
            self.looks += 1
            line = self._lines[number]
            if line.admits(tokens, share):
                return line
        return None
