"""The lines that could admit a request, without a look at each of them.

Lines lie in cells: those with the same number of running requests and, by powers of two, the same room. Within a cell
they are sorted by the prompts that wait to be read there. So the head of each cell with more room than needed admits
the request, and is the best of its cell; only in the cells whose room is of the order of what is needed, lines that do
not admit it lie among those that do. Where only those are left, the line with most room is taken.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Final, Generic, Protocol, TypeVar

from .most_first import MostFirst
from .share import WHOLE, Share

# In a cell where not all lines admit the request, so many are looked at before another cell is.
LOOKS: Final = 4
# A line within its cell is one number, its backlog above its own number: such are compared fastest.
_BITS: Final = 32
_NUMBER: Final = (1 << _BITS) - 1


def busyness(unread: int, running: int) -> int:
    """How long it takes to a request's first token, were each request that runs as much work as the prompts that are
    to be read. One token more than there is: with nothing to be read, the line that runs least is the least busy.
    """
    return (unread + 1) * (running + 1)


class IndexedLine(Protocol):
    number: int
    at_work: int
    backlog: int

    @property
    def free(self) -> int: ...

    def admits(self, tokens: int, share: Share = WHOLE) -> bool: ...
    def is_within(self, share: Share) -> bool: ...


L = TypeVar("L", bound=IndexedLine)


class LineIndex(Generic[L]):
    def __init__(self) -> None:
        # Lines that admit something, by number.
        self._lines: dict[int, L] = {}
        # By size of the room, and then by running requests; of each size, those that there are in order.
        self._cells: dict[int, dict[int, list[int]]] = {}
        self._running: dict[int, list[int]] = {}
        self._sizes: list[int] = []
        # Of each line: how many requests run there, the size of its room, and its place in that cell.
        self._places: dict[int, tuple[int, int, int]] = {}
        self._rooms: MostFirst[L] = MostFirst(lambda line: line.free)
        # Those that have changed since somebody asked: many do so several times between.
        self._unsorted: dict[int, L] = {}
        self.looks = 0

    def put(self, line: L) -> None:
        """A line is new, or has changed."""
        self._unsorted[line.number] = line

    def _sort_in(self) -> None:
        unsorted = self._unsorted
        while unsorted:
            self._sort(unsorted.popitem()[1])

    def _sort(self, line: L) -> None:
        free = line.free
        if free < 0:
            self._take(line)
            return
        number, running = line.number, line.at_work
        size, place = free.bit_length(), line.backlog << _BITS | number
        at = running, size, place
        before = self._places.get(number)
        if before is None:
            self._lines[number] = line
            self._rooms.put(line)
        elif before == at:
            return
        else:
            self._remove(before)
            self._rooms.changed(line)
        self._places[number] = at
        cells = self._cells.get(size)
        if cells is None:
            cells = self._cells[size] = {}
            self._running[size] = []
            insort(self._sizes, size)
        places = cells.get(running)
        if places is None:
            cells[running] = [place]
            insort(self._running[size], running)
        else:
            insort(places, place)

    def take(self, line: L) -> None:
        """A line is gone."""
        self._unsorted.pop(line.number, None)
        self._take(line)

    def _take(self, line: L) -> None:
        """It admits nothing now."""
        before = self._places.pop(line.number, None)
        if before is not None:
            del self._lines[line.number]
            self._remove(before)
            self._rooms.take(line)

    def _remove(self, at: tuple[int, int, int]) -> None:
        running, size, place = at
        cells = self._cells[size]
        places = cells[running]
        if len(places) > 1:
            del places[bisect_left(places, place)]
            return
        del cells[running]
        if cells:
            there = self._running[size]
            del there[bisect_left(there, running)]
            return
        del self._cells[size], self._running[size]
        self._sizes.remove(size)

    @property
    def largest_room(self) -> int:
        """The most tokens that some line has room for; -1 if none has room for any."""
        if self._unsorted:
            self._sort_in()
        return self._rooms.most

    def least_busy(
        self, tokens: int, prompt: int, share: Share, chance: float, less_than: int | None
    ) -> tuple[L, int] | None:
        """The least busy line that admits so many tokens, with how busy it is with the prompt; None if none is less
        busy than `less_than`. If there is any line, one is found, where a share of less than all is the same part of
        lines alike; it is the best of all but for those of its cell that stand before it and do not admit the request.
        """
        if self._unsorted:
            self._sort_in()
        size = tokens.bit_length()
        best: L | None = None
        is_sure = True
        for room in reversed(self._sizes):
            if room < size:
                break
            cells = self._cells[room]
            for running in self._running[room]:
                if less_than is not None and (prompt + 1) * (running + 1) >= less_than:
                    break
                places = cells[running]
                if less_than is not None and ((places[0] >> _BITS) + prompt + 1) * (running + 1) >= less_than:
                    continue
                if share is not WHOLE and not self._is_within(places[0], share):
                    # The others of the cell run as many, and have no less to read; but they may be larger lines, or
                    # run only what others gave them.
                    is_sure = is_sure and len(places) == 1
                    continue
                line = self._first(places, tokens, share, chance)
                if line is not None:
                    best, less_than = line, (line.backlog + prompt + 1) * (running + 1)
                elif len(places) > LOOKS:
                    is_sure = False
        if best is None and not is_sure:
            line = self._rooms.first(lambda line: self._admits(line, tokens, share), tokens)
            if line is not None and (less_than is None or busyness(line.backlog + prompt, line.at_work) < less_than):
                best, less_than = line, busyness(line.backlog + prompt, line.at_work)
        return None if best is None or less_than is None else (best, less_than)

    def _is_within(self, place: int, share: Share) -> bool:
        self.looks += 1
        return self._lines[place & _NUMBER].is_within(share)

    def _admits(self, line: L, tokens: int, share: Share) -> bool:
        self.looks += 1
        return line.admits(tokens, share)

    def _first(self, places: list[int], tokens: int, share: Share, chance: float) -> L | None:
        if chance and len(places) > 1:
            equal = bisect_left(places, ((places[0] >> _BITS) + 1) << _BITS)
            if equal > 1:
                line = self._lines[places[int(chance * equal)] & _NUMBER]
                if self._admits(line, tokens, share):
                    return line
        for place in places[:LOOKS]:
            line = self._lines[place & _NUMBER]
            if self._admits(line, tokens, share):
                return line
        return None
