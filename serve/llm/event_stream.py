"""A response of server-sent events, with a sign of life while there is nothing to send.

The head goes out with the engine's own, so that an error is a status and JSON. An engine that says nothing for as long
as a silence may last has the head sent before: what goes wrong after that is an event.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Final, Self

from ..base.background import spawn
from .exchange import ClientGone, Exchange, Headers
from .problems import Api

# Nothing between here and the client may keep events back, or keep them for others.
EVENTS: Final[Headers] = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]
PINGS: Final = {Api.OPENAI: b": ping\n\n", Api.ANTHROPIC: b'event: ping\ndata: {"type": "ping"}\n\n'}


class EventStream:
    """A context manager, from before the engine is asked. `ping` is sent after `ping_s` to twice that of silence."""

    def __init__(self, exchange: Exchange, ping_s: float) -> None:
        self._exchange = exchange
        self._ping_s = ping_s
        self._loop = asyncio.get_running_loop()
        self._writes = self._seen = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def begun(self) -> bool:
        return bool(self._exchange.status)

    async def begin(self, headers: Headers = EVENTS) -> None:
        """Send the head, unless it went with a sign of life."""
        self._writes += 1
        if not self.begun:
            await self._exchange.begin(200, headers)

    def write(self, data: bytes) -> Coroutine[Any, Any, None]:
        """Whole events. ClientGone if nobody takes them."""
        self._writes += 1
        return self._exchange.write(data)

    async def end(self) -> None:
        await self._exchange.end()

    def _tick(self) -> None:
        if self._writes == self._seen and not self._exchange.complete:
            spawn(self._ping())
        self._seen = self._writes
        self._timer = self._loop.call_later(self._ping_s, self._tick)

    async def _ping(self) -> None:
        if self._exchange.complete:
            return  # since this was asked for
        with contextlib.suppress(ClientGone):
            if not self.begun:
                await self._exchange.begin(200, EVENTS)
            await self._exchange.write(PINGS[self._exchange.api])

    def __enter__(self) -> Self:
        self._timer = self._loop.call_later(self._ping_s, self._tick)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._timer is not None:
            self._timer.cancel()
