"""What the application of one HTTP request receives: the body, and in the end that nobody waits for its answer.

The events are uvicorn's. Nothing here knows where a body comes from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

# An application that was told that its client has gone, and has not ended by then, is cancelled.
DISCONNECT_GRACE_S: Final = 2.0

# The next part of a body and whether more follows; None if the rest never comes.
ReceivePart = Callable[[], Awaitable[tuple[bytes, bool] | None]]


class Incoming:
    """The `receive` of a request. Several tasks may wait in it at once.

    The body comes first. Then the request is over once its client has gone or its response is complete, and `receive`
    says "http.disconnect" from there on, whatever of the body was not read.
    """

    # What a request has from the start stands in the class: most need nothing else, and there are many.
    _next_part: ReceivePart | None = None
    _on_over: Callable[[], None] | None = None
    _told: asyncio.Event | None = None
    over = False
    # The application has asked for what comes after the body: it wants to know when its client goes.
    listened = False

    def __init__(self, body: bytes | None) -> None:
        """`body` is all of it."""
        self._body = body

    @classmethod
    def in_parts(cls, next_part: ReceivePart, on_over: Callable[[], None]) -> Incoming:
        """A body that comes in parts. `on_over` is called once nobody can receive any more of it."""
        incoming = cls(None)
        incoming._next_part = next_part
        incoming._on_over = on_over
        return incoming

    async def receive(self) -> dict[str, Any]:
        if not self.over:
            if self._body is not None:
                body, self._body = self._body, None
                return {"type": "http.request", "body": body, "more_body": False}
            if self._next_part is not None:
                part = await self._next_part()
                if part is not None and not self.over:
                    body, more = part
                    if not more:
                        self._next_part = None
                    return {"type": "http.request", "body": body, "more_body": more}
            await self._until_over()
        return {"type": "http.disconnect"}

    async def _until_over(self) -> None:
        self.listened = True
        if not self.over:
            if self._told is None:
                self._told = asyncio.Event()
            await self._told.wait()

    def end(self) -> None:
        """The client has gone, or the response is complete."""
        self.over = True
        if (on_over := self._on_over) is not None:
            self._body = self._next_part = self._on_over = None
            on_over()
        if self._told is not None:
            self._told.set()
