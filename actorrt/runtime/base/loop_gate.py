"""A stream's credits where its generator runs on an event loop."""

from __future__ import annotations

import asyncio

from actorrt.wire.messages import UNLIMITED

from .credits import more_credits


class LoopGate:
    """Holds the producer while it has no credits. Runs on the user's loop."""

    __slots__ = ("_event", "left")

    def __init__(self, credits: int) -> None:
        self.left = credits
        self._event: asyncio.Event | None = None

    def add(self, n: int) -> None:
        self.left = more_credits(self.left, n)
        if self._event is not None:
            self._event.set()

    def take_now(self) -> bool:
        """One credit if there is one; the common case, without a coroutine."""
        left = self.left
        if left == 0:
            return False
        if left != UNLIMITED:
            self.left = left - 1
        return True

    async def take(self) -> None:
        """One credit; waits while there is none."""
        while not self.take_now():
            if self._event is None:
                self._event = asyncio.Event()
            self._event.clear()
            await self._event.wait()
