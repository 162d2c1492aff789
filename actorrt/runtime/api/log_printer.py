"""The driver's side of workers' output: print lines with a prefix, from a thread of its own.

A terminal that stands still (Ctrl-S, a full pipe) blocks this thread and nothing else; then what waits is bounded,
and what does not fit is counted.
"""

from __future__ import annotations

import contextlib
import itertools
import sys
import threading
import time
from collections.abc import Sequence
from typing import Final, TextIO, cast

from actorrt.core.loglines import Deduplicator, Line, prefixed, stands_for

MAX_WAITING: Final = 10_000
MAX_WAITING_CHARACTERS: Final = 8 * 1024 * 1024
LINES_A_WRITE: Final = 256
# A terminal that takes nothing for so long is given up when the program ends.
STUCK_AFTER_S: Final = 2.0


class LogPrinter:
    """Call it with lines, from any thread; it never waits. The thread starts with the first line."""

    def __init__(self, deduplicate: bool = True) -> None:
        self._deduplicator = Deduplicator() if deduplicate else None
        self._changed = threading.Condition()
        self._waiting: list[Line] = []
        self._characters = 0
        self._missed = 0
        self._closed = False
        self._written = 0
        self._thread: threading.Thread | None = None

    def __call__(self, lines: Sequence[Line]) -> None:
        with self._changed:
            if self._closed:
                return
            for line in lines:
                if len(self._waiting) < MAX_WAITING and self._characters < MAX_WAITING_CHARACTERS:
                    self._waiting.append(line)
                    self._characters += len(line[3])
                else:
                    self._missed += stands_for(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="actorrt-output", daemon=True)
                self._thread.start()
            self._changed.notify()

    def close(self) -> None:
        """Print what is left, and end the thread; gives up on a terminal that does not take it. Safe to call again."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        thread = self._thread
        if thread is None:
            return
        written = -1
        while thread.is_alive() and written != self._written:
            written = self._written
            thread.join(STUCK_AFTER_S)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or self._closed, self._until_due())
                lines, self._waiting, self._characters = self._waiting, [], 0
                missed, self._missed = self._missed, 0
                closed = self._closed
            self._print(self._once(lines, closed))
            if missed:
                _write(sys.stderr, f"(actorrt) [{missed} lines dropped: they came faster than they could be shown]\n")
            if closed:
                return

    def _until_due(self) -> float | None:
        due = None if self._deduplicator is None else self._deduplicator.due
        return None if due is None else max(0.0, due - time.monotonic())

    def _once(self, lines: list[Line], closed: bool) -> list[Line]:
        if self._deduplicator is None:
            return lines
        now = time.monotonic()
        shown = self._deduplicator.expire(now)
        for line in lines:
            shown += self._deduplicator.feed(line, now)
        if closed:
            shown += self._deduplicator.flush()
        return shown

    def _print(self, lines: list[Line]) -> None:
        """All lines, in order; neighbours on the same stream together."""
        for is_error, neighbours in itertools.groupby(lines, key=_is_error):
            together = list(neighbours)
            # Looked up each time: notebooks and tests put others in their place.
            stream = sys.stderr if is_error else sys.stdout
            colour = _is_terminal(stream)
            for start in range(0, len(together), LINES_A_WRITE):
                part = together[start : start + LINES_A_WRITE]
                _write(stream, "".join(f"{prefixed(line, colour)}\n" for line in part))
                self._written += 1


def _is_error(line: Line) -> bool:
    return line[2]


def _is_terminal(stream: TextIO) -> bool:
    with contextlib.suppress(AttributeError, ValueError, OSError):
        return stream.isatty()
    return False


def _write(stream: TextIO, text: str) -> None:
    # A stream that is closed, gone, or None (pythonw, a daemon) is the user's wish.
    if cast("TextIO | None", stream) is None:
        return
    with contextlib.suppress(OSError, ValueError):
        try:
            stream.write(text)
        except UnicodeEncodeError:
            encoding = stream.encoding or "ascii"
            stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        stream.flush()
