"""Dial and accept connections for links: HTTP streams over Unix sockets, and over TCP between machines (network.py).

The dialler POSTs to /link with a body that stays open; both sides say hello in one chunk each. A server of aiohttp
accepts, whose stream reader and writer are bypassed from then on: a protocol of our own reads into one buffer that is
used again and again, and the link writes to the socket itself. The bytes stay valid chunked HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import mmap
import os
import platform
import sys
import weakref
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from actorrt.exceptions import LinkError
from actorrt.types import NO_PROCESS, ProcessId
from actorrt.wire.addresses import Endpoint, endpoint_of
from actorrt.wire.dialling import Attempt
from actorrt.wire.frames import RAW_FRAME_BYTES
from actorrt.wire.greeting import HELLO_LIMIT, hello_in, request_with
from actorrt.wire.link import DUPLICATE, greeting, why_refused
from actorrt.wire.messages import PROTOCOL_VERSION, Hello, decode_hello, encode_hello
from actorrt.wire.pipe_end import PIECE

from ..base.descriptors import allow_more_after
from ..base.socket_paths import reachable
from .access import UNIX_ONLY, Access
from .connection import Connection, connection_over, let_go
from .link import Link
from .network import HELLO_TIMEOUT_S, Doors, RefusedProofError, connect

if TYPE_CHECKING:
    from aiohttp import StreamReader, web

_SERVER: Final = "aiohttp.web"
_CLOSED: Final = "the peer closed the link while it opened"
# As much as one read takes: a piece of a pipe in its frame, exactly, so that the next read begins with the next frame.
READ_BYTES: Final = PIECE + RAW_FRAME_BYTES

P = TypeVar("P", bound=asyncio.BaseProtocol)


class DialError(LinkError):
    """A dial has failed."""

    attempt = Attempt.FAILED


class NoAnswerError(DialError):
    """The peer listens and says nothing: it is stopped, busy, or swapped out."""

    attempt = Attempt.SILENT


class NobodyListensError(DialError):
    """There is no socket, or nobody who listens at it."""

    attempt = Attempt.NOBODY


class DialBrokeError(DialError):
    """The connection ended before both hellos had come."""

    attempt = Attempt.BROKE


class RefusedError(DialError):
    """The peer has read the hello, and does not want the link."""

    attempt = Attempt.REFUSED


class DuplicateError(RefusedError):
    """The same: it has one, or dials by itself."""

    process: ProcessId = NO_PROCESS


def refusal(hello: Hello) -> RefusedError:
    """What to raise where a hello was answered with this one."""
    if hello.refused != DUPLICATE:
        return RefusedError(hello.refused)
    duplicate = DuplicateError(hello.refused)
    duplicate.process = hello.process
    return duplicate


def attempt_of(error: LinkError) -> Attempt:
    """How a dial has failed that raised `error`."""
    return error.attempt if isinstance(error, DialError) else Attempt.FAILED


def make_hello(process: ProcessId, role: str, version: str) -> Hello:
    return Hello(process, role, os.getpid(), PROTOCOL_VERSION, platform.python_version(), version)


async def _read_hello(content: StreamReader) -> Hello:
    data = b""
    while True:
        piece, chunk_ends = await content.readchunk()
        data += piece
        if chunk_ends and data:
            return decode_hello(data)
        if len(data) > HELLO_LIMIT or (not piece and content.at_eof()):
            raise LinkError("the peer did not say hello")


class _Reader(asyncio.BufferedProtocol):
    """Reads one connection of a link, in the place of the protocol that has read the hello, which is told of all else.

    The bytes come into one buffer that all links of a loop share: it stays in the processor's cache, and nothing is
    allocated for what only passes through.
    """

    def __init__(self, link: Link, connection: Connection, before: asyncio.BaseProtocol) -> None:
        self._feed = link.feed_data
        self._parser = link.end.parser
        self._broke = partial(link.broke, connection)
        self._has_room = connection.has_room
        self._before: Any = before
        self._buffer = _buffer_of(link.loop)

    def get_buffer(self, sizehint: int) -> memoryview:
        # Of a raw frame that is cut, the rest alone, for the same reason.
        left = self._parser.raw_left
        return self._buffer[:left] if left else self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._feed(self._buffer[:nbytes])

    def eof_received(self) -> bool | None:
        self._broke()
        return self._before.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._broke()
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()
        self._has_room()


_buffers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = weakref.WeakKeyDictionary()


def _buffer_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    found = _buffers.get(loop)
    if found is None:
        # Memory of its own, of which only what is read into is ever there: most processes read little at a time.
        found = _buffers[loop] = memoryview(mmap.mmap(-1, READ_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    return found


class _Dialling(asyncio.Protocol):
    """A connection of the dialler's until the hello of the peer has come."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._data = b""
        # An error is a result: whoever dials may have been cancelled, and nobody looks at it.
        self._hello: asyncio.Future[bytes | Exception] = loop.create_future()

    async def hello(self) -> bytes:
        """What the peer says. Raises OSError, ValueError and LinkError."""
        said = await self._hello
        if isinstance(said, Exception):
            raise said
        return said

    def data_received(self, data: bytes) -> None:
        self._data += data
        if not self._hello.done():
            try:
                hello: bytes | Exception | None = hello_in(self._data)
            except (LinkError, ValueError) as error:
                hello = error
            if hello is not None:
                self._hello.set_result(hello)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._hello.done():
            self._hello.set_result(exc or ConnectionResetError(_CLOSED))


class Dialled:
    """A connection over which both hellos were said, and which nobody reads yet. It is used in this turn of the loop,
    or closed.
    """

    def __init__(self, hello: Hello, transport: asyncio.Transport, before: asyncio.BaseProtocol) -> None:
        self.hello = hello
        self.connection = connection_over(asyncio.get_running_loop(), transport)
        self._before = before

    def read_for(self, link: Link) -> None:
        transport = self.connection.transport
        transport.set_protocol(_Reader(link, self.connection, self._before))


class Dialler:
    """Opens connections to what listens at a path, or at `tcp:host:port`."""

    def __init__(self, timeout_s: float = HELLO_TIMEOUT_S, access: Access = UNIX_ONLY) -> None:
        self._timeout_s = timeout_s
        self._access = access

    async def dial(self, path: str, hello: Hello) -> Dialled:
        """Open a connection to the process that listens at `path`. Raises LinkError when that cannot be now.

        NoAnswerError: nothing came in time; RefusedError: the peer said no; NobodyListensError: there is none;
        DialBrokeError: the connection ended at once.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._greet(path, hello)
        except TimeoutError:
            raise NoAnswerError(f"no answer came from {path} for {self._timeout_s:g} s") from None
        except (OSError, ValueError, msgspec.DecodeError) as error:
            if isinstance(error, OSError) and allow_more_after(error):
                return await self.dial(path, hello)
            raise _cannot_open(path, error) from error

    async def connect(self, path: str, factory: Callable[[], P]) -> tuple[asyncio.Transport, P]:
        """A bare connection, for what is no link; between machines both sides have proved to have the token by then.

        Raises OSError, and RefusedError where they have not.
        """
        if (endpoint := endpoint_of(path)) is not None:
            try:
                return await connect(self._access, factory, endpoint)
            except RefusedProofError as error:
                raise RefusedError(str(error)) from None
        with reachable(path) as address:
            return await asyncio.get_running_loop().create_unix_connection(factory, address)

    async def _greet(self, path: str, hello: Hello) -> Dialled:
        loop = asyncio.get_running_loop()
        transport, dialling = await self.connect(path, partial(_Dialling, loop))
        try:
            transport.write(request_with(encode_hello(hello)))
            theirs = decode_hello(await dialling.hello())
            if theirs.refused:
                raise refusal(theirs)
            if transport.is_closing():
                raise ConnectionResetError(_CLOSED)
            return Dialled(theirs, transport, dialling)
        except BaseException:
            transport.abort()
            raise


def _cannot_open(path: str, error: Exception) -> LinkError:
    kind = LinkError
    if isinstance(error, ConnectionRefusedError | FileNotFoundError):
        kind = NobodyListensError
    elif isinstance(error, ConnectionError):
        kind = DialBrokeError
    return kind(f"could not open a link to {path}: {type(error).__name__}: {error}")


# What becomes of a hello: the answer to it, and the link that reads from its connection, unless it is refused.
Welcome = Callable[[Hello, Connection], tuple[Hello, Link | None]]
# Who answers a request that is for no link: those who may ask are on this machine, or have proved to have the token.
Serves = Callable[["web.Request"], Awaitable["web.StreamResponse"]]


class Acceptor:
    """Accepts connections at a Unix socket, and at a port. `welcome` says what becomes of each hello."""

    def __init__(self, hello: Hello, welcome: Welcome, access: Access = UNIX_ONLY) -> None:
        self.hello = hello
        # None: there are no other requests than those of links.
        self.serves: Serves | None = None
        self._welcome = welcome
        self._access = access
        self._runner: Any = None
        self._doors: Doors | None = None

    async def listen(self, path: str) -> None:
        if _SERVER not in sys.modules:
            # A program that only dials never needs it. It takes a fifth of a second.
            await asyncio.to_thread(importlib.import_module, _SERVER)
        from aiohttp import web

        runner = web.ServerRunner(web.Server(self._handle, access_log=None, handler_cancellation=True))
        await runner.setup()
        with reachable(path) as address:
            await web.UnixSite(runner, address).start()
        os.chmod(path, 0o600)
        self._runner = runner

    async def open(self, port: int) -> Endpoint:
        """Accept those of other machines too; where they reach this process. LinkError: that cannot be."""
        self._doors = Doors(self._access, self._runner.server)
        return await self._doors.listen(port)

    async def _handle(self, request: Any) -> Any:
        from aiohttp import ClientError, web

        if self.serves is not None and (request.method, request.path) != ("POST", "/link"):
            return await self.serves(request)
        try:
            theirs = await asyncio.wait_for(_read_hello(request.content), HELLO_TIMEOUT_S)
        except (ConnectionError, TimeoutError, LinkError, ClientError, msgspec.DecodeError):
            # Somebody only looked whether this process listens, or speaks something else.
            return web.Response(status=400)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        # A connection that breaks while it opens is dialled again by who wants it: no error of this server.
        with contextlib.suppress(ConnectionError):
            await self._answer(request, theirs, response)
        return response

    async def _answer(self, request: Any, theirs: Hello, response: Any) -> None:
        """Say hello, and return when the connection is over. Raises ConnectionError if it breaks before that."""
        await response.prepare(request)
        transport = request.transport
        if transport is None:  # it has gone meanwhile
            return
        # From here to the change of the protocol nothing waits: what is decided about a hello holds.
        if refused := why_refused(self.hello, theirs):
            await response.write(encode_hello(greeting(self.hello, theirs.link, refused=refused)))
            await response.write_eof()
            return
        connection = connection_over(asyncio.get_running_loop(), transport)
        answer, link = self._welcome(theirs, connection)
        if link is None:
            connection.drop()
            await response.write(encode_hello(answer))
            await response.write_eof()
            return
        transport.set_protocol(_Reader(link, connection, request.protocol))
        try:
            await response.write(encode_hello(answer))
            await connection.over.wait()
        finally:
            link.broke(connection)

    def abandon(self) -> None:
        """Close the socket that a fork has inherited, and nothing that belongs to its parent."""
        if self._runner is not None:
            for site in self._runner.sites:
                for listening in site._server.sockets:
                    let_go(listening.fileno())
        if self._doors is not None and (listening := self._doors.fileno()) is not None:
            let_go(listening)

    async def close(self) -> None:
        if self._doors is not None:
            await self._doors.close()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
