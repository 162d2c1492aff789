"""A stream's credits where its generator runs in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final

from actorrt.wire.messages import UNLIMITED

from ..base.credits import more_credits

# What stands for the end of a generator, where a value might be anything.
END: Final = object()


class ThreadGate:
    """Holds the producer while it has no credits. `add` and `cancel` come from the runtime loop."""

    def __init__(self, credits: int, on_blocked: Callable[[bool], None]) -> None:
        self._left = credits
        self._changed = threading.Condition()
        self._cancelled = False
        self._on_blocked = on_blocked

    def add(self, n: int) -> None:
        with self._changed:
            self._left = more_credits(self._left, n)
            self._changed.notify()

    def cancel(self) -> None:
        with self._changed:
            self._cancelled = True
            self._changed.notify()

    def take(self) -> None:
        """One credit; waits for it. Raises KeyboardInterrupt when the stream is cancelled."""
        if not self._left and not self._cancelled:
            self._on_blocked(True)
            try:
                with self._changed:
                    self._changed.wait_for(lambda: self._left or self._cancelled)
            finally:
                self._on_blocked(False)
        with self._changed:
            if self._cancelled:
                raise KeyboardInterrupt
            if self._left != UNLIMITED:
                self._left -= 1
