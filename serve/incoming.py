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

    __slots__ = ("_body", "_next_part", "_told", "listened", "over")

    def __init__(self, body: bytes | ReceivePart) -> None:
        self._body: bytes | None = None
        self._next_part: ReceivePart | None = None
        if isinstance(body, bytes):
            self._body = body
        else:
            self._next_part = body
        self._told: asyncio.Event | None = None
        self.over = False
        # The application has asked for what comes after the body: it wants to know when its client goes.
        self.listened = False

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
        self._body = self._next_part = None
        if self._told is not None:
            self._told.set()
