"""Whether a worker that ended while it started is followed by another one, and when. No I/O.

An end of its own making (an exit code, a segmentation fault, no memory) is likely to come again: after a few it is
given up. That somebody else has killed it says nothing about the next one: others follow for as long as a start may
take, with pauses that grow, so that whoever kills them all does not have the machine fork without end.
"""

from __future__ import annotations

from typing import Final

# So many may end by themselves.
MOST_FAILURES: Final = 3
# The first that is killed is replaced at once; the pauses double from here on.
FIRST_PAUSE_S: Final = 0.05
LONGEST_PAUSE_S: Final = 1.0


class StartAttempts:
    """The workers that have ended while they started for one and the same purpose."""

    __slots__ = ("_failures", "_first", "_kills", "_last", "_patience_s")

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._failures = 0
        self._kills = 0
        # When the first and the last of them ended.
        self._first = self._last = 0.0

    def ended(self, now: float, *, by_itself: bool) -> float | None:
        """One has ended, at `now` seconds: for how many seconds the next one waits; None: there is no next one."""
        if not self._failures + self._kills:
            self._first = now
        self._last = now
        if by_itself:
            self._failures += 1
            return 0.0 if self._failures < MOST_FAILURES else None
        pause_s = 0.0
        if self._kills:
            pause_s = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._kills - 1, 16))
        self._kills += 1
        return pause_s if now + pause_s <= self._first + self._patience_s else None

    def story(self, cause: str) -> str:
        """How the last one ended, and how many before it, in words."""
        before = self._failures + self._kills - 1
        if before < 1:
            return f"it ended while it started: {cause}"
        return f"it ended while it started, as did {before} before it in {self._last - self._first:.2f} s: {cause}"
