"""KeyboardInterrupt for exactly one call: raised in the main thread, in the code of its user, and nowhere else.

A signal reaches the main thread wherever it is just then. In the runtime's own code an exception would leave things
half done (a wake-up noted and not sent), and between two calls it would hit the wrong one. So the handler looks where
it is. In the user's code, and where the runtime waits for something, it raises. Elsewhere it leaves that to a trace
function, called as soon as the user's code goes on; and the signal is sent again, until it has hit or the call is over.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import CodeType, FrameType
from typing import Any, Final

from actorrt import core, runtime, wire

from ..links.running import RunningCall

AGAIN_S: Final = 0.002
_OURS: Final = tuple(os.path.dirname(path) + os.sep for path in (runtime.__file__, core.__file__, wire.__file__))


class Interrupts:
    """Interrupts the calls of one main thread."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, safe: set[CodeType], on_hit: Callable[[RunningCall], None]
    ) -> None:
        """In `safe` functions of the runtime it may be raised: they call the user's code, or wait.

        `on_hit` is told of the call just before it is raised there.
        """
        # The call that the main thread runs.
        self.current: RunningCall | None = None
        self._loop = loop
        self._safe = safe
        self._on_hit = on_hit
        self._wanted: RunningCall | None = None
        # The call that was hit last: its `finally` blocks are left in peace.
        self._hit: RunningCall | None = None
        # The user's frame in which it is raised when that goes on.
        self._awaited: FrameType | None = None

    def install(self) -> None:
        """To be called in the main thread."""
        signal.signal(signal.SIGINT, self._on_signal)

    def begin(self, run: RunningCall) -> None:
        """The main thread takes up a call."""
        self.current = run

    def end(self) -> None:
        """It is done with it."""
        self.current = None
        if self._awaited is not None:
            self._trace(None)

    def interrupt(self, run: RunningCall) -> None:
        """Have it raised in `run`, once, if it is what the main thread runs; runtime loop."""
        if run is not self._hit and run is not self._wanted:
            self._wanted = run
            self._send()

    def _send(self) -> None:
        wanted = self._wanted
        if wanted is None or self._loop.is_closed():
            return
        if wanted is not self.current:
            self._wanted = None
            return
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGINT)
        self._loop.call_later(AGAIN_S, self._send)

    # ---- in the main thread

    def _on_signal(self, _: int, frame: FrameType | None) -> None:
        if self._is_due():
            caller = self._user_frame(frame)
            if caller is frame:
                self._raise()
            self._trace(caller)

    def _is_due(self) -> bool:
        return self._wanted is not None and self._wanted is self.current

    def _raise(self) -> None:
        run = self._hit = self._wanted
        self._wanted = None
        assert run is not None
        self._on_hit(run)
        if self._awaited is not None:
            self._trace(None)
        raise KeyboardInterrupt

    def _user_frame(self, frame: FrameType | None) -> FrameType | None:
        """The frame itself where it may be raised at once; else the user's frame that will go on, if there is one."""
        above = frame
        at_once = True
        while above is not None:
            code = above.f_code
            if code in self._safe:
                return frame if at_once else None
            # Out of a finalizer comes no exception.
            if code.co_name == "__del__" or code.co_filename.startswith(_OURS):
                at_once = False
            elif not at_once:
                return above
            above = above.f_back
        return None

    def _trace(self, frame: FrameType | None) -> None:
        """Have `_traced` called when the frame goes on; None: stop that."""
        if frame is not None:
            frame.f_trace = self._traced
            sys.settrace(_no_trace)
            self._awaited = frame
        elif self._awaited is not None:
            sys.settrace(None)
            self._awaited = None

    def _traced(self, _: FrameType, __: str, ___: Any) -> None:
        self._trace(None)
        if self._is_due():
            self._raise()


def _no_trace(_: FrameType, __: str, ___: Any) -> None:
    """Frames that are entered meanwhile are not traced."""
