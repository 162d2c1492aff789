"""The bytes of one streamed response, between the code that makes them and the call that carries them away.

What lies here together leaves together: the carrier takes all of it at once, so a fast producer costs few messages and
a slow one waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

MOST_HELD = 256 * 1024
# An item of a stream travels inside a message, so it must not be large.
LARGEST_ITEM = 64 * 1024


class ByteChannel:
    """One producer, one consumer, one loop."""

    __slots__ = ("_consumer", "_ended", "_error", "_held", "_parts", "_producer", "abandoned", "on_abandoned")

    def __init__(self) -> None:
        self._parts: deque[bytes] = deque()
        self._held = 0
        self._ended = False
        self._error: BaseException | None = None
        self._consumer: asyncio.Future[None] | None = None
        self._producer: asyncio.Future[None] | None = None
        # Nobody takes any more.
        self.abandoned = False
        self.on_abandoned: Callable[[], object] | None = None

    @property
    def full(self) -> bool:
        return self._held >= MOST_HELD and not self.abandoned

    def put(self, data: bytes) -> None:
        if not data or self.abandoned:
            return
        if len(data) <= LARGEST_ITEM:
            self._parts.append(data)
        else:
            self._parts.extend(data[at : at + LARGEST_ITEM] for at in range(0, len(data), LARGEST_ITEM))
        self._held += len(data)
        self._wake(self._consumer)

    async def room(self) -> None:
        """Return once the consumer has taken enough, or has gone."""
        while self.full:
            self._producer = asyncio.get_running_loop().create_future()
            try:
                await self._producer
            finally:
                self._producer = None

    def end(self, error: BaseException | None = None) -> None:
        self._ended = True
        self._error = None if self.abandoned else error
        self._wake(self._consumer)

    def abandon(self) -> None:
        """The consumer has gone. If the producer has not ended it is told."""
        if self.abandoned:
            return
        self.abandoned = True
        self._parts.clear()
        self._held = 0
        self._error = None
        self._wake(self._producer)
        if not self._ended and self.on_abandoned is not None:
            self.on_abandoned()

    async def take(self) -> bytes:
        """All that is there, at least a byte and at most LARGEST_ITEM; b"" at the end. Raises the producer's error."""
        while not self._parts:
            if self._ended:
                error, self._error = self._error, None
                try:
                    if error is not None:
                        raise error
                finally:
                    del error  # its traceback holds this frame
                return b""
            self._consumer = asyncio.get_running_loop().create_future()
            try:
                await self._consumer
            finally:
                self._consumer = None
        data = self._pop()
        self._held -= len(data)
        if not self.full:
            self._wake(self._producer)
        return data

    def _pop(self) -> bytes:
        parts = self._parts
        if self._held <= LARGEST_ITEM:
            data = parts[0] if len(parts) == 1 else b"".join(parts)
            parts.clear()
            return data
        taken = [parts.popleft()]
        size = len(taken[0])
        while size + len(parts[0]) <= LARGEST_ITEM:
            size += len(parts[0])
            taken.append(parts.popleft())
        return b"".join(taken)

    @staticmethod
    def _wake(waiter: asyncio.Future[None] | None) -> None:
        if waiter is not None and not waiter.done():
            waiter.set_result(None)
