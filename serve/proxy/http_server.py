"""uvicorn's server with our protocol, on a socket that is bound already and a loop that runs already."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import functools
import os
import random
import socket
from collections.abc import Generator
from typing import Any

import uvicorn
from uvicorn.server import Server

from ..http.http_options import HTTPOptions
from .http_front import Front
from .http_protocol import ServeProtocol
from .http_request import Backend


class _Server(Server):
    """Without uvicorn's signal handlers: the process belongs to a worker, which has its own."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class HttpServer:
    """Hands requests to `backend`; a websocket is run by the ASGI application `websocket`.

    OSError or ValueError if the TLS files cannot be loaded.
    """

    def __init__(self, backend: Backend, options: HTTPOptions, websocket: Any) -> None:
        # Seeded by the system now, not before the process was forked.
        ids = random.Random(os.urandom(16))
        self._front = Front(backend, options, lambda: b"%032x" % ids.getrandbits(128))
        self._server = _Server(
            uvicorn.Config(
                websocket,
                http=functools.partial(ServeProtocol, front=self._front),  # type: ignore[arg-type]
                interface="asgi3",
                # Both ways to an application take them into account in the same manner, in the proxy.
                proxy_headers=False,
                loop="none",
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                ssl_keyfile=options.ssl_keyfile,
                ssl_certfile=options.ssl_certfile,
                ssl_keyfile_password=options.ssl_keyfile_password,
                ssl_ca_certs=options.ssl_ca_certs,
            )
        )
        # Here and not once it serves, where nobody hears of what cannot be loaded.
        self._server.config.load()
        self._serving: asyncio.Task[None] | None = None

    def start(self, listener: socket.socket, context: contextvars.Context) -> None:
        loop = asyncio.get_running_loop()
        self._serving = loop.create_task(self._server.serve(sockets=[listener]), context=context)
        self._front.start(loop)

    @property
    def connections(self) -> int:
        """How many there are, those of websockets too."""
        return len(self._server.server_state.connections)

    async def drain(self, limit_s: float) -> None:
        """Take no new connections, close idle ones, and return when the others have ended or were cut off."""
        self._front.drain()
        if self._serving is not None:
            self._server.should_exit = True
            _, still = await asyncio.wait([self._serving], timeout=limit_s)
            while still:
                self._server.force_exit = True
                # Again and again: some may have come just before no more were taken.
                self._cut_off()
                _, still = await asyncio.wait([self._serving], timeout=0.1)
        self._front.stop()

    def _cut_off(self) -> None:
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        for websocket in list(self._server.server_state.tasks):
            websocket.cancel()
