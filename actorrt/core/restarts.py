"""How long an actor that was lost waits for its next life: not at all, unless it is lost again and again. No I/O."""

from __future__ import annotations

from typing import Final

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
# Lives that were longer than this are no sign of an actor that cannot live.
LONG_LIFE_S: Final = 10.0


class Restarts:
    """The losses of one actor."""

    __slots__ = ("_again", "_lost_at")

    def __init__(self) -> None:
        self._lost_at: float | None = None
        # How often it was lost shortly after it had been lost.
        self._again = 0

    def pause(self, now: float) -> float:
        """It is lost, at `now` seconds: for how many seconds its restart waits."""
        before, self._lost_at = self._lost_at, now
        if before is None or now - before > LONG_LIFE_S + LONGEST_PAUSE_S:
            self._again = 0
            return 0.0
        self._again += 1
        return min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0 ** min(self._again - 1, 16))
