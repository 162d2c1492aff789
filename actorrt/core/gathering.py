"""When small pieces that a loop's code writes, turn after turn, leave the process.

Each write costs a system call here and a wake-up there. A piece that comes alone leaves at the end of its turn, so that
it is held back by nothing. Those that follow it in the next turns leave together, a little later.
"""

from __future__ import annotations

from enum import auto
from typing import Final

from .labels import Label

# Nothing waits longer for others than this, in turns and in seconds: the turns of a loop that has much to do are long.
MOST_TURNS: Final = 16
LONGEST_S: Final = 0.0003
# After so many turns without a piece, none is expected.
QUIET_TURNS: Final = 2


class _State(Label):
    # No turn is looked at.
    QUIET = auto()
    # A piece has come alone, and leaves at the end of its turn.
    FIRST = auto()
    # It has left; in this turn none has followed, or one has.
    EMPTY = auto()
    WRITTEN = auto()


_QUIET: Final = _State.QUIET
_FIRST: Final = _State.FIRST
_EMPTY: Final = _State.EMPTY
_WRITTEN: Final = _State.WRITTEN


class Gathering:
    __slots__ = ("_before", "_held", "_quiet", "_since", "_state")

    def __init__(self) -> None:
        self._state = _QUIET
        # Turns since the oldest piece that is here, and when that was seen; turns without one.
        self._held = self._quiet = 0
        self._since = 0.0
        # When the turn before ended.
        self._before = 0.0

    def wrote(self) -> bool:
        """A piece was written in this turn. True: have `turn` called at its end."""
        if self._state is _QUIET:
            self._state = _FIRST
            return True
        if self._state is _EMPTY:
            self._state = _WRITTEN
        return False

    def turn(self, now: float) -> tuple[bool, bool]:
        """A turn has ended, at `now` seconds: whether what is here leaves, and whether to call this after the next."""
        state, self._state = self._state, _EMPTY
        took_long, self._before = now - self._before >= LONGEST_S, now
        if state is _FIRST:
            return True, True
        wrote = state is _WRITTEN
        self._quiet = 0 if wrote else self._quiet + 1
        if self._held:
            self._held += 1
        elif wrote:
            self._held, self._since = 1, now
        ends = self._quiet >= QUIET_TURNS
        waited = took_long or now - self._since >= LONGEST_S or self._held >= MOST_TURNS
        leaves = self._held > 0 and (ends or waited)
        if leaves:
            self._held = 0
        if ends:
            self._state = _QUIET
            self._quiet = 0
        return leaves, not ends
