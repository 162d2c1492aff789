"""How the proxy's server ends."""

import asyncio
import contextvars
import functools
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import uvloop

from actorrt.serve.http.http_options import HTTPOptions
from actorrt.serve.proxy.answer import Answer
from actorrt.serve.proxy.http_request import HttpRequest
from actorrt.serve.proxy.http_server import HttpServer

from .exchange import write


class Backend:
    """Begins a response and does not end it by itself."""

    def __init__(self) -> None:
        self.gone = 0

    def handle(self, request: HttpRequest) -> None:
        request.on_gone = self.client_gone
        write(request, b"HTTP/1.1 200 OK\r\n\r\nx")

    def client_gone(self, _: Answer) -> None:
        self.gone += 1


def on_uvloop(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @functools.wraps(test)
    def run(*args: object) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(20):
                await test(*args)

        uvloop.run(bounded())

    return run


@on_uvloop
async def test_a_server_that_ends_cuts_off_at_its_limit_what_does_not_end() -> None:
    websocket_ended = asyncio.Event()

    async def websocket(scope: Any, receive: Any, send: Any) -> None:
        try:
            await receive()
            await send({"type": "websocket.accept"})
            await asyncio.Event().wait()
        finally:
            websocket_ended.set()

    backend = Backend()
    server = HttpServer(backend, HTTPOptions(), websocket)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setblocking(False)
    server.start(listener, contextvars.Context())
    port = listener.getsockname()[1]
    clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
    upgrade = b"connection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\nsec-websocket-key: "
    for number, (reader, writer) in enumerate(clients):
        fields = upgrade + b"A" * 22 + b"==\r\n" if number == 0 else b""
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n%b\r\n" % fields)
        await reader.readuntil(b"\r\n\r\n")
    await server.drain(0.2)
    assert backend.gone == 2
    assert websocket_ended.is_set()
    for reader, writer in clients:
        with suppress(ConnectionError):
            await reader.read()
        writer.close()
