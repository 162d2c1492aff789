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
        # With whether its prompt had a whole block.
        self._lines: OrderedDict[str, tuple[LineId, bool]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._lines)

    def line_of(self, session: str) -> LineId | None:
        """None of one that has not run yet, or was forgotten."""
        found = self._lines.get(session)
        return None if found is None else found[0]

    def has_blocks(self, session: str) -> bool:
        """Whether the prompt of its last turn had a whole block, so that its line is known to hold it, or to have lost
        it.
        """
        found = self._lines.get(session)
        return found is not None and found[1]

    def note(self, session: str, line: LineId, *, has_blocks: bool = False) -> None:
        """It has a turn there now."""
        self._lines[session] = line, has_blocks
        self._lines.move_to_end(session)
        if len(self._lines) > self._most:
            self._lines.popitem(last=False)
