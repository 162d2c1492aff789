"""The last few things that happened to something, for the text of an error."""

from __future__ import annotations

from collections import deque
from typing import Final

LENGTH: Final = 8


class Story:
    """Remembers the last lines that were added."""

    __slots__ = ("_lines",)

    def __init__(self, length: int = LENGTH) -> None:
        self._lines: deque[str] = deque(maxlen=length)

    def add(self, line: str) -> None:
        self._lines.append(line)

    def __str__(self) -> str:
        return ", ".join(self._lines)
