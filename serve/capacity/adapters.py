"""Which lines have a LoRA adapter, or another model of several, loaded: elsewhere it has to be loaded first.

A line keeps those that were used last; an engine that says what it has is believed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final

from .need import LineId

# Where nobody has said how many a line keeps.
MOST_PER_LINE: Final = 8
# Of the lines that have one, so many are looked at.
MOST_LOOKS: Final = 16


class Adapters:
    def __init__(self, most_per_line: int = MOST_PER_LINE) -> None:
        self._most = most_per_line
        self._loaded: dict[LineId, OrderedDict[str, None]] = {}
        # The line that used it last at the end.
        self._lines: dict[str, OrderedDict[LineId, None]] = {}

    def note(self, line: LineId, adapter: str) -> None:
        """A request with it runs there."""
        loaded = self._loaded.setdefault(line, OrderedDict())
        loaded[adapter] = None
        loaded.move_to_end(adapter)
        lines = self._lines.setdefault(adapter, OrderedDict())
        lines[line] = None
        lines.move_to_end(line)
        while len(loaded) > self._most:
            self._forget(line, loaded.popitem(last=False)[0])

    def said(self, line: LineId, adapters: Iterable[str]) -> None:
        """An engine has these, and no others."""
        self.drop(line)
        for adapter in adapters:
            self.note(line, adapter)

    def drop(self, line: LineId) -> None:
        """The line has ended."""
        for adapter in self._loaded.pop(line, ()):
            self._forget(line, adapter)

    def _forget(self, line: LineId, adapter: str) -> None:
        lines = self._lines[adapter]
        del lines[line]
        if not lines:
            del self._lines[adapter]

    def lines(self, adapter: str) -> Iterator[LineId]:
        """Some lines that have it loaded, those that used it last first."""
        return islice(reversed(self._lines.get(adapter, {})), MOST_LOOKS)
