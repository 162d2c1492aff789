"""What the connections of one HTTP server share: backend, options, and the sweep that ends those that take too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any, Protocol, cast

from ..http.forwarded_headers import TrustedServers
from ..http.http_options import HTTPOptions
from .http_request import Backend


class Sweepable(Protocol):
    """A connection, as the sweep sees it."""

    transport: asyncio.Transport
    flow: Any

    def sweep(self, now: float) -> None: ...


def _websocket_protocol() -> type[asyncio.Protocol] | None:
    for module, name in (("websockets_sansio_impl", "WebSocketsSansIOProtocol"), ("wsproto_impl", "WSProtocol")):
        try:
            found = import_module(f"uvicorn.protocols.websockets.{module}")
        except ImportError:
            continue
        return cast("type[asyncio.Protocol]", getattr(found, name))
    return None


class Front:
    """What the connections of one server share, and the sweep that ends those that take too long."""

    def __init__(self, backend: Backend, options: HTTPOptions, new_request_id: Callable[[], bytes]) -> None:
        self.backend = backend
        self.options = options
        self.trusted = TrustedServers(options.forwarded_allow_ips or "")
        self.new_request_id = new_request_id
        self.connections: set[Sweepable] = set()
        self.clock: Callable[[], float] = time.monotonic
        self.draining = False
        self._timer: asyncio.TimerHandle | None = None
        # Those that there are, at most one, once they were looked for.
        self._websocket_protocols: tuple[type[asyncio.Protocol], ...] | None = None

    def drain(self) -> None:
        """No more requests than those that are here."""
        self.draining = True

    def has(self, connection: Sweepable) -> None:
        self.connections.add(connection)

    def loses(self, connection: Sweepable) -> None:
        self.connections.discard(connection)

    def trusts(self, client: tuple[str, int] | None) -> bool:
        """Whether what this client says of where its requests come from is believed."""
        return client is not None and self.trusted.trusts(client[0])

    def websocket_protocol(self) -> type[asyncio.Protocol] | None:
        """uvicorn's protocol for websockets; None where no library for them is installed. Loaded on first use."""
        if self._websocket_protocols is None:
            found = _websocket_protocol()
            self._websocket_protocols = () if found is None else (found,)
        return next(iter(self._websocket_protocols), None)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        options = self.options
        shortest = min(options.request_read_timeout_s, options.stalled_client_timeout_s, options.keep_alive_timeout_s)
        self.clock = loop.time
        self._sweep(loop, min(1.0, max(0.02, shortest / 4)))

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _sweep(self, loop: asyncio.AbstractEventLoop, period_s: float) -> None:
        now = self.clock()
        for connection in list(self.connections):
            connection.sweep(now)
        self._timer = loop.call_later(period_s, self._sweep, loop, period_s)
