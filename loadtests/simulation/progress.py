"""A line on standard error of what goes on: one that is written over on a terminal, else one every ten seconds."""

from __future__ import annotations

import sys
import time
from typing import Final

EVERY_S: Final = 0.2
EVERY_S_IN_FILES: Final = 10.0


class Progress:
    def __init__(self) -> None:
        self._is_terminal = sys.stderr.isatty()
        # Nothing is said in the first second.
        self._began = time.monotonic()
        self._next = self._began + 1.0
        self._width = 0

    def say(self, text: str) -> None:
        now = time.monotonic()
        if now < self._next:
            return
        line = f"{text} ({now - self._began:.0f} s)"
        if self._is_terminal:
            self._next = now + EVERY_S
            sys.stderr.write("\r" + line.ljust(self._width))
            self._width = len(line)
        else:
            self._next = now + EVERY_S_IN_FILES
            sys.stderr.write(line + "\n")
        sys.stderr.flush()

    def done(self) -> None:
        if self._width:
            sys.stderr.write("\r" + " " * self._width + "\r")
            sys.stderr.flush()
