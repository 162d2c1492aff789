"""What the threads and coroutines of a process are at, put together for people. No I/O.

Thousands of coroutines may stand at one line: those whose frames are the same are told of once, with their number.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

# So many different stacks of coroutines are told of, so many frames of each, and so many names of those at one place.
MOST_STACKS: Final = 200
MOST_FRAMES: Final = 50
MOST_NAMES: Final = 3


class Frame(NamedTuple):
    """A line that waits or runs. `ours`: it is actorrt's."""

    file: str
    line: int
    function: str
    text: str = ""
    ours: bool = False


class Thread(NamedTuple):
    """A thread, the outermost frame first. `waits_for`: "" if it runs, or nobody knows."""

    name: str
    frames: Sequence[Frame]
    waits_for: str = ""


class Coroutines(NamedTuple):
    """Coroutines at the same lines: how many, the names of some, and what the first of them waits for."""

    names: Sequence[str]
    number: int
    frames: Sequence[Frame]
    waits_for: str = ""


class Gathering:
    """Takes the coroutines of a process one by one."""

    def __init__(self) -> None:
        self._found: dict[tuple[tuple[str, int], ...], Coroutines] = {}
        # Those that were not taken, since there were too many different ones.
        self.left_out = 0

    def is_known(self, place: tuple[tuple[str, int], ...], name: str) -> bool:
        """One more stands at these lines. False: it is the first, and is to be added with its frames."""
        known = self._found.get(place)
        if known is None:
            if len(self._found) < MOST_STACKS:
                return False
            self.left_out += 1
            return True
        names = [*known.names, name] if len(known.names) < MOST_NAMES else known.names
        self._found[place] = known._replace(names=names, number=known.number + 1)
        return True

    def add(self, place: tuple[tuple[str, int], ...], name: str, frames: Sequence[Frame], waits_for: str) -> None:
        self._found[place] = Coroutines([name], 1, frames, waits_for)

    @property
    def found(self) -> list[Coroutines]:
        """The most frequent first."""
        return sorted(self._found.values(), key=lambda each: -each.number)


def threads_in(rows: Sequence[Any]) -> list[Thread]:
    """Threads as another process has sent them."""
    return [Thread(name, _frames(frames), waits_for) for name, frames, waits_for in rows]


def coroutines_in(rows: Sequence[Any]) -> list[Coroutines]:
    """The same of coroutines."""
    return [Coroutines(names, count, _frames(frames), waits_for) for names, count, frames, waits_for in rows]


def _frames(rows: Sequence[Sequence[Any]]) -> list[Frame]:
    return [Frame(*each) for each in rows]
