"""How long an actor that was lost waits for its next life: not at all, unless it is lost again and again. No I/O."""

from __future__ import annotations

from typing import Final

FIRST_PAUSE_S: Final = 0.1
LONGEST_PAUSE_S: Final = 10.0
# Lives that were longer than this are no sign of an actor that cannot live.
LONG_LIFE_S: Final = 10.0


class Restarts:
    """The losses of one actor."""

    __slots__ = ("_again", "_began")

    def __init__(self) -> None:
        # When its present life began.
        self._began: float | None = None
        # How often in a row its life was short.
        self._again = 0

    def pause(self, now: float) -> float:
        """It is lost, at `now` seconds: for how many seconds its restart waits."""
        pause = 0.0
        if self._began is None or now - self._began > LONG_LIFE_S:
            self._again = 0
        else:
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2.0**self._again)
            self._again = min(self._again + 1, 16)
        self._began = now + pause
        return pause
