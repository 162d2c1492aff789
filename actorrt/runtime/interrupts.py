"""KeyboardInterrupt for exactly one call: raised in the main thread, in the code of its user, and nowhere else.

A signal reaches the main thread wherever it is then. In the runtime's own code an exception would leave things half
done (a wake-up noted and not sent), and between two calls it would hit the wrong one. So the handler looks where it is,
and where it may not raise, the signal is sent again a moment later, until it has hit or the call is over.
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from types import CodeType, FrameType
from typing import Final

from actorrt import core, wire

from .context import RunningCall

AGAIN_S: Final = 0.002
_OURS: Final = tuple(os.path.dirname(path) + os.sep for path in (__file__, core.__file__, wire.__file__))


class Interrupts:
    """`current` is the call that the main thread runs, set and cleared there."""

    def __init__(self, loop: asyncio.AbstractEventLoop, safe: set[CodeType]) -> None:
        """In the functions of `safe`, the runtime's own, it may be raised: they call the user's code or wait."""
        self.current: RunningCall | None = None
        self._loop = loop
        self._safe = safe
        self._wanted: RunningCall | None = None
        # The call that was hit last: its `finally` blocks are left in peace.
        self._hit: RunningCall | None = None

    def install(self) -> None:
        """To be called in the main thread."""
        signal.signal(signal.SIGINT, self._on_signal)

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

    def _on_signal(self, _: int, frame: FrameType | None) -> None:
        wanted = self._wanted
        if wanted is not None and wanted is self.current and self._may_raise(frame):
            self._hit, self._wanted = wanted, None
            raise KeyboardInterrupt

    def _may_raise(self, frame: FrameType | None) -> bool:
        while frame is not None:
            code = frame.f_code
            if code in self._safe:
                return True
            # From a finalizer no exception comes out.
            if code.co_name == "__del__" or code.co_filename.startswith(_OURS):
                return False
            frame = frame.f_back
        return False
