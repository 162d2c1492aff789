"""The bytes of one streamed response, between the code that makes them and the call that carries them away.

What is made before that call takes any waits here; from then on all goes straight to where the call writes, which
sends what lies there together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import Enum
from typing import Final, Protocol

MOST_HELD = 256 * 1024


class Sink(Protocol):
    """Takes bytes at once, and tells how many have not left it."""

    @property
    def held(self) -> int: ...
    def write_with_turn(self, data: bytes) -> None: ...
    async def drained(self) -> None: ...


class Flow(Enum):
    FLOWING = "FLOWING"
    ENDED = "ENDED"  # all has been put
    ABANDONED = "ABANDONED"  # nobody takes any more, whether or not all has been put


# Bound here, since looking up a member of an Enum takes long.
_FLOWING: Final = Flow.FLOWING
ABANDONED: Final = Flow.ABANDONED


class ByteChannel:
    """One producer, one consumer, one loop."""

    __slots__ = ("_error", "_held", "_parts", "_sink", "_waiters", "flow", "on_abandoned")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._held = 0
        self._sink: Sink | None = None
        self.flow = _FLOWING
        self._error: BaseException | None = None
        # The consumer, for the end, or who makes more than is taken.
        self._waiters: list[asyncio.Future[None]] = []
        self.on_abandoned: Callable[[], object] | None = None

    @property
    def full(self) -> bool:
        held = self._held if self._sink is None else self._sink.held
        return held >= MOST_HELD and self.flow is not ABANDONED

    def put(self, data: bytes) -> None:
        if not data or self.flow is ABANDONED:
            return
        if self._sink is not None:
            self._sink.write_with_turn(data)
        else:
            self._parts.append(data)
            self._held += len(data)

    async def room(self) -> None:
        """Return once enough was taken, or nobody takes any more."""
        while self.full:
            if self._sink is None:
                await self._changed()
            else:
                await self._sink.drained()

    def end(self, error: BaseException | None = None) -> None:
        if self.flow is _FLOWING:
            self.flow, self._error = Flow.ENDED, error
        self._wake()

    def abandon(self) -> None:
        """The consumer has gone. If the producer has not ended it is told."""
        before, self.flow = self.flow, ABANDONED
        if before is ABANDONED:
            return
        self._parts.clear()
        self._held = 0
        self._error = None
        self._wake()
        if before is _FLOWING and self.on_abandoned is not None:
            self.on_abandoned()

    async def flow_into(self, sink: Sink) -> None:
        """Have all that is put here written to `sink` at once. Returns at the end. Raises the producer's error."""
        for part in self._parts:
            sink.write_with_turn(part)
        self._parts.clear()
        self._held = 0
        self._sink = sink
        self._wake()
        while self.flow is _FLOWING:
            await self._changed()
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # its traceback holds this frame

    async def _changed(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            await waiter
        finally:
            if waiter in self._waiters:
                self._waiters.remove(waiter)

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)
