"""What Ctrl-C and SIGTERM do to a server: interrupt its start; once it serves, end the wait; the second time, end it.

The node watches this process and stops everything when it is gone, so ending it is all that "at once" takes.
"""

from __future__ import annotations

import os
import select
import signal

from .interrupts import INTERRUPTED, end_now


class StopSignals:
    """From its making on. `number` is the first signal that came, 0 before."""

    def __init__(self) -> None:
        self.number = 0
        self._serving = False
        # A lock is no good in a signal handler: the code it interrupts may hold it.
        self._read, self._write = os.pipe()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._on_signal)

    def _on_signal(self, number: int, _: object) -> None:
        if self.number:
            end_now(number, "stopped at once, what was running is cut off" if self._serving else INTERRUPTED)
        self.number = number
        if not self._serving:
            raise KeyboardInterrupt
        os.write(self._write, b"x")

    def now_serving(self) -> None:
        self._serving = True

    def wait(self, timeout_s: float) -> bool:
        """Whether someone has asked to stop, within these seconds."""
        return bool(select.select([self._read], [], [], timeout_s)[0])
