"""A backend's side of a request as coroutines: the body in parts, and parts of the answer as the client takes them."""

from __future__ import annotations

import asyncio
from typing import Final

from actorrt.serve.proxy.arrival import Arrival
from actorrt.serve.proxy.http_request import HttpRequest

LARGEST_PART: Final = 64 * 1024


class ClientDisconnected(OSError):
    """The client closed the connection before its request was complete or answered."""


async def read(request: HttpRequest) -> bytes:
    """The next part of the body, what is there of it; b"" at the end. ClientDisconnected if it never comes."""
    while not (parts := request.take(LARGEST_PART)):
        if request.arrival is Arrival.COMPLETE:
            return b""
        if request.connection is None:
            raise ClientDisconnected
        came = asyncio.Event()
        request.watch_body(came.set)
        await came.wait()
    return b"".join(parts)


def write(request: HttpRequest, data: bytes) -> bool:
    """A part of the answer. False: its client is slow to take it."""
    return request.pass_on(memoryview(data))


async def taken(request: HttpRequest) -> None:
    """Return when the client has taken most of what was written."""
    has_taken = asyncio.Event()
    request.watch_taking(has_taken.set, None)
    await has_taken.wait()
    request.taken()
