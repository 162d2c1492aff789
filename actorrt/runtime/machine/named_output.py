"""A worker's stdout and stderr: each print is marked with the name of who prints, and does not wait for a line's end.

A mark goes into the pipe itself, just before what belongs to it, since nothing else keeps the order. The node takes
it out again (core/loglines.py). What other code writes to the descriptor counts as printed by who was named last.
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from typing import Any, Final, Self

from actorrt.core.loglines import mark

from ..links.running import running_call

# What stands in an unfinished line is written after so long at the latest.
FLUSH_AFTER_S: Final = 0.1
# So many characters without an end of line are written at once.
MOST_HELD: Final = 8192


# The streams that have text of lines that have not ended.
_unfinished: Final[set[NamedOutput]] = set()


def finish_lines() -> None:
    """Write what the calls that have ended here have left of lines; for a look it costs next to nothing."""
    if _unfinished:
        for stream in list(_unfinished):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()


class _SharedBuffer(io.BufferedWriter):
    """It outlives whoever closes it, as a text stream does that was laid around it and is collected."""

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.flush()


class NamedOutput(io.TextIOWrapper):
    """A line-buffered text stream to a pipe, to be made with `before_fork`.

    `default` is the name of what runs outside of any call.

    It belongs to all that run in this process: code that closes or detaches it has it flushed, and leaves it to them.
    """

    def __init__(self, fd: int) -> None:
        super().__init__(
            _SharedBuffer(io.FileIO(fd, "w", closefd=False)),
            encoding="utf-8",
            errors="backslashreplace",
            line_buffering=True,
        )
        self.default = ""
        self._fd = fd
        self._pipe = 0
        self._named = ""
        # What has been printed of lines that have not ended, by whom and in which thread.
        self._held: dict[tuple[str, int], str] = {}
        self._due = threading.Event()
        self._flusher: threading.Thread | None = None
        self._reset()

    @classmethod
    def before_fork(cls, fd: int) -> Self:
        """One for processes that are forked later, each of which calls `begin`.

        A stream learns what it writes to as it is made: a pipe lies at the descriptor meanwhile, as in those processes.
        """
        kept, ends = os.dup(fd), os.pipe()
        try:
            os.dup2(ends[1], fd)
            return cls(fd)
        finally:
            os.dup2(kept, fd)
            for one in (kept, *ends):
                os.close(one)

    def begin(self) -> None:
        """Belong to this process: what lies at the descriptor by now is its pipe."""
        self._pipe = os.fstat(self._fd).st_ino
        os.register_at_fork(after_in_child=self._reset)

    def _reset(self) -> None:
        # Another thread may have held it when this process forked.
        self._lock = threading.RLock()
        self._flusher = None
        self._due.clear()

    def write(self, text: str, /) -> int:
        with self._lock:
            run = running_call.get()
            name = self.default if run is None else run.name if run.actor is None else run.actor.title
            # A print is several writes: each of those who print at once has its own line.
            key = (name, threading.get_ident())
            whole = self._held.pop(key, "") + text
            end = whole.rfind("\n") + 1
            if not end and len(whole) >= MOST_HELD:
                end = len(whole)
            if end:
                self._put(name, whole[:end])
            if end < len(whole):
                self._held[key] = whole[end:]
                _unfinished.add(self)
                if not self._due.is_set():
                    self._flush_soon()
        return len(text)

    def flush(self) -> None:
        with self._lock:
            held, self._held = self._held, {}
            _unfinished.discard(self)
            for (name, _), text in held.items():
                self._put(name, text)
            super().flush()

    def close(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.flush()

    def detach(self) -> Any:
        self.flush()
        return self.buffer

    def _put(self, name: str, text: str) -> None:
        if name != self._named:
            self._mark(name)
        super().write(text)

    def names(self, name: str) -> None:
        """What runs from now on outside of any call, or by code that writes to the descriptor."""
        # What user code has done to the descriptor is no reason not to run what comes next.
        with self._lock, contextlib.suppress(OSError, ValueError):
            self.default = name
            if name != self._named:
                self._mark(name)

    def _mark(self, name: str) -> None:
        super().flush()
        self._named = name
        # Not into a file that a user has put in the place of the pipe.
        if os.fstat(self._fd).st_ino == self._pipe:
            os.write(self._fd, mark(name))

    def _flush_soon(self) -> None:
        self._due.set()
        if self._flusher is None:
            # A thread of its own: a pipe that is full may hold it up.
            self._flusher = threading.Thread(target=self._run, args=(self._due,), name="actorrt-output", daemon=True)
            self._flusher.start()

    def _run(self, due: threading.Event) -> None:
        pause = threading.Event()
        while due.wait():
            pause.wait(FLUSH_AFTER_S)
            due.clear()
            try:
                self.flush()
            except (OSError, ValueError):
                self._flusher = None
                return
