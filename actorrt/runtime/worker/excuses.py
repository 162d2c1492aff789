"""What may block a worker's loop on purpose: the loading of code, the reading of large values."""

from __future__ import annotations

import time


class Excuses:
    """Entered where such work begins. From any thread it can be seen whether it goes on, and when it ended last."""

    def __init__(self) -> None:
        self._under_way = 0
        # Until this moment of time.monotonic().
        self.until = 0.0

    @property
    def holds(self) -> bool:
        """Whether such work goes on."""
        return self._under_way > 0

    def end(self) -> None:
        """Such work, which nobody has entered here, has ended."""
        self.until = time.monotonic()

    def __enter__(self) -> None:
        self._under_way += 1

    def __exit__(self, *_: object) -> None:
        # In this order: who looks sees one of the two.
        self.end()
        self._under_way -= 1
