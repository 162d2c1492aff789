"""One HTTP request between its connection and the backend that answers it.

The connection parses and bounds; the backend gets a request, and answers by `respond` or by `write` and `end`. Calls on
a request whose client has gone do nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

from .request_head import CLOSE, HEAD, HTTP_1_0

LONGEST_REQUEST_ID: Final = 200
# A part of a body travels inside a message.
LARGEST_PART: Final = 64 * 1024


class ClientDisconnected(OSError):
    """The client closed the connection before its request was complete or answered."""


class Connection(Protocol):
    """What a request needs of the connection that it came on."""

    line: bytes

    def write(self, data: bytes) -> None: ...
    def finished(self, request: "HttpRequest", close: bool) -> None: ...
    def abort(self) -> None: ...
    async def drain(self) -> None: ...
    def body_taken(self, request: "HttpRequest") -> None: ...
    def wants_body(self, request: "HttpRequest") -> None: ...


class Backend(Protocol):
    """Answers requests. `handle` must not wait and must not raise."""

    def handle(self, request: "HttpRequest") -> None: ...


class HttpRequest:
    """`fields` holds names, in lower case, and values in turn. `body` is complete if `streams` is false."""

    __slots__ = (
        "_chunks",
        "_waiter",
        "answered",
        "body",
        "complete",
        "connection",
        "expects",
        "fields",
        "held",
        "http10",
        "keep_alive",
        "method",
        "on_gone",
        "path",
        "query",
        "request_id",
        "started",
        "status",
        "streams",
        "timeout_s",
        "version",
        "written",
    )

    def __init__(self, connection: Connection) -> None:
        self.connection: Connection | None = connection
        self.method = b""
        self.path = b""
        self.query = b""
        self.version = b"1.1"
        self.http10 = False
        self.keep_alive = True
        self.fields: list[bytes] = []
        self.request_id = b""
        self.timeout_s: float | None = None
        self.body = b""
        # Its body comes in parts by `read`.
        self.streams = False
        self.complete = False
        self.expects = False
        # Bytes of the body that nobody has taken yet.
        self.held = 0
        self._chunks: list[bytes] = []
        self._waiter: asyncio.Future[None] | None = None
        # Nothing more may be written.
        self.answered = False
        # Some of the response has been written.
        self.written = False
        self.started = 0.0
        self.status = b""
        # Called once if the client goes before the response is complete.
        self.on_gone: Callable[[], None] | None = None

    @property
    def framing(self) -> int:
        made = 0 if self.keep_alive else CLOSE
        if self.method == b"HEAD":
            made |= HEAD
        if self.http10:
            made |= HTTP_1_0
        return made

    # What a backend does.

    def respond(self, data: bytes, close: bool = False) -> None:
        """The whole response, or all the rest of it. The connection stays if neither side wants it closed."""
        connection = self.connection
        if self.answered or connection is None:
            return
        self.answered = True
        self.on_gone = None
        if not self.written:
            self.status = data[9:12]
        if data:
            connection.write(data)
        connection.finished(self, close)

    def write(self, data: bytes) -> None:
        """A part of the response."""
        connection = self.connection
        if self.answered or connection is None or not data:
            return
        if not self.written:
            self.written = True
            self.status = data[9:12]
        connection.write(data)

    async def drain(self) -> None:
        """Return when the client has taken most of what was written. ClientDisconnected if it has gone."""
        if self.connection is not None:
            await self.connection.drain()
        if self.connection is None:
            raise ClientDisconnected("the client has gone")

    def abort(self) -> None:
        """Cut the connection off: the only way to say that a response that has begun is not complete."""
        connection = self.connection
        if not self.answered and connection is not None:
            self.answered = True
            self.on_gone = None
            connection.abort()

    async def read(self) -> bytes:
        """The next part of the body, what is there of it; b"" at the end. ClientDisconnected if it never comes."""
        while not self._chunks:
            if self.complete:
                return b""
            if self.connection is None:
                raise ClientDisconnected("the client went before its request was complete")
            self.connection.wants_body(self)
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        chunks = self._chunks
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        # What is left counts as held, and its connection reads no more while that is too much.
        chunks[:] = (data[LARGEST_PART:],) if len(data) > LARGEST_PART else ()
        data = data[:LARGEST_PART]
        self.held -= len(data)
        if self.connection is not None:
            self.connection.body_taken(self)
        return data

    # What its connection does.

    def fed(self, data: bytes) -> None:
        self._chunks.append(data)
        self.held += len(data)
        self._wake()

    def ended(self) -> None:
        self.complete = True
        if not self.streams:
            self.body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
            self._chunks.clear()
            self.held = 0
        self._wake()

    def discard(self) -> None:
        self._chunks.clear()
        self.held = 0

    def gone(self) -> None:
        """The client has disconnected."""
        self.connection = None
        self._wake()
        if (callback := self.on_gone) is not None:
            self.on_gone = None
            callback()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
