"""Pipes of the calls on one loop that have a little to send, turn after turn, and when that leaves."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from actorrt.core.gathering import Gathering

if TYPE_CHECKING:
    import asyncio

    from .pipes import Pipe, PipeLink


class PipeTurns:
    """For the thread of `loop`, but for `bring`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, dirty: set[PipeLink], flush: Callable[[], None]) -> None:
        """`flush` writes what the links in `dirty` have."""
        self._loop = loop
        self._dirty = dirty
        self._flush = flush
        self._gathering = Gathering()
        self._pipes: list[Pipe] = []

    def wrote(self, pipe: Pipe | None) -> None:
        """Something was written in this turn; `pipe`, if it is the first that this pipe has here."""
        if pipe is not None:
            self._pipes.append(pipe)
        if self._gathering.wrote():
            self._loop.call_soon(self._turn)

    def _turn(self) -> None:
        leaves, looks_again = self._gathering.turn(time.monotonic())
        if looks_again:  # first, for a link that cannot be written to must not end it
            self._loop.call_soon(self._turn)
        if leaves:
            self.bring()
            self._dirty.update(pipe.link for pipe in self._pipes)
            self._pipes.clear()
            self._flush()

    def bring(self) -> None:
        """Have what was written sent by the next flush of each link; another thread may ask for it, too."""
        for pipe in list(self._pipes):
            pipe.bring()
