"""The lines that could admit a request, without a look at each of them.

Lines lie in cells: those with the same number of running requests and, by powers of two, the same room. Within a cell
they are sorted by the prompts that wait to be read there. So the head of each cell with more room than needed admits
the request, and is the best of its cell; only in the cells whose room is of the order of what is needed, lines that do
not admit it lie among those that do.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from typing import Final, Generic, Protocol, TypeVar

# More than any line's number.
LAST: Final = 2**62
# In a cell where not all lines admit the request, so many are looked at before another cell is.
LOOKS: Final = 4


def busyness(unread: int, running: int) -> int:
    """How long it takes to a request's first token, were each request that runs as much work as the prompts that are
    to be read. One token more than there is: with nothing to be read, the line that runs least is the least busy.
    """
    return (unread + 1) * (running + 1)


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

    @property
    def largest_room(self) -> int:
        """No line has room for more tokens; -1 if none has room for any."""
        return max(((1 << room) - 1 for _, room in self._cells), default=-1)

    def least_busy(
        self, tokens: int, prompt: int, share: float, chance: float, less_than: int | None
    ) -> tuple[L, int] | None:
        """The least busy line that admits so many tokens, with how busy it is with the prompt; None if none is less
        busy than `less_than`. If there is any line, one is found; it is the best of all but for those of its cell that
        stand before it and do not admit the request.
        """
        size = tokens.bit_length()
        best: L | None = None
        unsure: list[list[_Place]] = []
        for (running, room), places in self._cells.items():
            if room < size:
                continue
            busy = busyness(places[0][0] + prompt, running)
            if less_than is not None and busy >= less_than:
                continue
            line = self._first(places, tokens, share, chance)
            if line is not None:
                best, less_than = line, busyness(line.backlog + prompt, running)
            elif len(places) > LOOKS:
                unsure.append(places)
        if best is None:
            for places in unsure:
                line = self._first_of_all(places, tokens, share)
                if line is not None and (
                    less_than is None or busyness(line.backlog + prompt, line.running) < less_than
                ):
                    best, less_than = line, busyness(line.backlog + prompt, line.running)
        return None if best is None or less_than is None else (best, less_than)

    def _first(self, places: list[_Place], tokens: int, share: float, chance: float) -> L | None:
        if chance and (equal := bisect_right(places, (places[0][0], LAST))) > 1:
            self.looks += 1
            line = self._lines[places[int(chance * equal)][1]]
            if line.admits(tokens, share):
                return line
        return self._first_of_all(places[:LOOKS], tokens, share)

    def _first_of_all(self, places: list[_Place], tokens: int, share: float) -> L | None:
        for _, number in places:
            self.looks += 1
            line = self._lines[number]
            if line.admits(tokens, share):
                return line
        return None
