"""When small pieces that a loop's code writes, turn after turn, leave the process.

Each write costs a system call here and a wake-up there. A piece that comes alone leaves at the end of its turn, so that
it is held back by nothing. Those that follow it in the next turns leave together, a little later.
"""

from __future__ import annotations

from typing import Final

# Nothing waits longer for others than this, in turns and in seconds: the turns of a loop that has much to do are long.
MOST_TURNS: Final = 16
LONGEST_S: Final = 0.0003
# After so many turns without a piece, none is expected.
QUIET_TURNS: Final = 2


class Gathering:
    __slots__ = ("_before", "_follows", "_held", "_looks", "_quiet", "_since", "_wrote")

    def __init__(self) -> None:
        self._looks = self._wrote = self._follows = False
        # Turns since the oldest piece that is here, and when that was seen; turns without one.
        self._held = self._quiet = 0
        self._since = 0.0
        # When the turn before ended.
        self._before = 0.0

    def wrote(self) -> bool:
        """A piece was written in this turn. True: have `turn` called at its end."""
        self._wrote = True
        begins = not self._looks
        self._looks = True
        return begins

    def turn(self, now: float) -> tuple[bool, bool]:
        """A turn has ended, at `now` seconds: whether what is here leaves, and whether to call this after the next."""
        wrote, self._wrote = self._wrote, False
        took_long, self._before = now - self._before >= LONGEST_S, now
        if not self._follows:
            self._follows = True
            return True, True
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
            self._looks = self._follows = False
            self._quiet = 0
        return leaves, not ends
