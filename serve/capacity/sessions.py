"""Where each session ran last: there its prefix lies, so it stays until the line has too much to read.

Sessions are forgotten in the order of their last turns.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from .need import LineId

MOST_SESSIONS: Final = 100_000


class Sessions:
    def __init__(self, most: int = MOST_SESSIONS) -> None:
        self._most = most
        self._lines: OrderedDict[str, LineId] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lines)

    def line_of(self, session: str) -> LineId | None:
        """None of one that has not run yet, or was forgotten."""
        return self._lines.get(session)

    def note(self, session: str, line: LineId) -> None:
        """It has a turn there now."""
        self._lines[session] = line
        self._lines.move_to_end(session)
        if len(self._lines) > self._most:
            self._lines.popitem(last=False)
