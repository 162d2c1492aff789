"""Make a request of a batch by the same handlers as one by HTTP, without HTTP."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

from ..exchange import Exchange
from .outputs import Answer

if TYPE_CHECKING:
    from starlette.types import Message

Handle = Callable[[Exchange], Awaitable[None]]
"""Answers it, whatever happens, unless it is cancelled."""


class Reply(NamedTuple):
    answer: Answer
    retry_after_s: float | None
    """What a refusal says."""


class _Memory:
    """What a client would send, and what it would be sent."""

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.parts: list[bytes] = []

    async def receive(self) -> Message:
        if self._body is None:
            # This client does not leave.
            await asyncio.get_running_loop().create_future()
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.headers = dict(message["headers"])
        else:
            self.parts.append(message.get("body", b""))


async def ask(handle: Handle, tenant: str, path: str, body: bytes) -> Reply:
    """A request of this tenant's, in the band of batches."""
    memory = _Memory(body)
    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    exchange = Exchange(scope, memory.receive, memory.send, request_id=uuid.uuid4().hex, batch_of=tenant)
    await handle(exchange)
    answer = Answer(memory.status, exchange.request_id, b"".join(memory.parts))
    return Reply(answer, _retry_after_s(memory.headers))


def _retry_after_s(headers: dict[bytes, bytes]) -> float | None:
    for name, unit_s in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        try:
            return float(headers[name]) * unit_s
        except (KeyError, ValueError):
            continue
    return None
