"""Dial and accept links: aiohttp streams over Unix sockets.

The dialler POSTs to /link with a body that stays open; both sides say hello in one chunk each. From then on aiohttp's
stream reader and writer are bypassed: a protocol of our own reads into one buffer that is used again and again, and the
link writes to the socket itself. The bytes stay valid chunked HTTP/1.1.
"""

from __future__ import annotations

import asyncio
import mmap
import os
import platform
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Any, Final

import aiohttp
import msgspec

from actorrt.exceptions import LinkError
from actorrt.wire.frames import RAW_FRAME_BYTES
from actorrt.wire.messages import PROTOCOL_VERSION, Hello, decode_hello, encode_hello

from .descriptors import allow_more_after
from .link import Link, Receiver, let_go
from .pipes import PIECE
from .socket_paths import reachable

HELLO_TIMEOUT_S: Final = 10.0
_HELLO_LIMIT: Final = 4096
# As much as one read takes: a piece of a pipe in its frame, exactly, so that the next read begins with the next frame.
READ_BYTES: Final = PIECE + RAW_FRAME_BYTES


class NoAnswerError(LinkError):
    """The peer listens and says nothing: it is stopped, busy, or swapped out."""


class RefusedError(LinkError):
    """The peer has read the hello, and does not want the link."""


def make_hello(process: bytes, role: str, version: str, refused: str = "") -> Hello:
    return Hello(process, role, os.getpid(), PROTOCOL_VERSION, platform.python_version(), version, refused)


def why_refused(mine: Hello, theirs: Hello) -> str:
    """Empty if the two can talk, else a sentence that says what to install."""
    if theirs.protocol != mine.protocol:
        return (
            f"actorrt {theirs.version} speaks protocol {theirs.protocol}, actorrt {mine.version} speaks "
            f"{mine.protocol}: install the same actorrt version on both sides"
        )
    if theirs.python.split(".")[:2] != mine.python.split(".")[:2]:
        return (
            f"Python {theirs.python} cannot exchange objects with Python {mine.python}: "
            f"install Python {'.'.join(mine.python.split('.')[:2])} on both sides"
        )
    return ""


async def _read_hello(content: aiohttp.StreamReader) -> Hello:
    data = b""
    while True:
        piece, chunk_ends = await content.readchunk()
        data += piece
        if chunk_ends and data:
            return decode_hello(data)
        if len(data) > _HELLO_LIMIT or (not piece and content.at_eof()):
            raise LinkError("the peer did not say hello")


class _Reader(asyncio.BufferedProtocol):
    """Reads for a link, in the place of aiohttp's protocol, which is told of all else.

    The bytes come into one buffer that all links of a loop share: it stays in the processor's cache, and nothing is
    allocated for what only passes through.
    """

    def __init__(self, link: Link, before: asyncio.BaseProtocol) -> None:
        self._feed = link.feed_data
        self._parser = link.parser
        self._before: Any = before
        self._buffer = _buffer_of(link.loop)

    def get_buffer(self, sizehint: int) -> memoryview:
        # Of a raw frame that is cut, the rest alone, for the same reason.
        left = self._parser.raw_left
        return self._buffer[:left] if left else self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        self._feed(self._buffer[:nbytes])

    def eof_received(self) -> bool | None:
        return self._before.eof_received()

    def connection_lost(self, exc: Exception | None) -> None:
        self._before.connection_lost(exc)

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()


_buffers: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, memoryview] = weakref.WeakKeyDictionary()


def _buffer_of(loop: asyncio.AbstractEventLoop) -> memoryview:
    found = _buffers.get(loop)
    if found is None:
        # Memory of its own, of which only what is read into is ever there: most processes read little at a time.
        found = _buffers[loop] = memoryview(mmap.mmap(-1, READ_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    return found


class Dialler:
    """Opens links, each with an HTTP session of its own that closes with it."""

    def __init__(self, receiver: Receiver, hello: Hello, timeout_s: float = HELLO_TIMEOUT_S) -> None:
        self._receiver = receiver
        self._hello = hello
        self._timeout_s = timeout_s

    async def dial(self, path: str) -> Link:
        """Open a link to the process that listens at `path`. Raises LinkError when that cannot be now.

        NoAnswerError: nothing came in time; RefusedError: the peer said no.
        """
        try:
            with reachable(path) as address:
                return await self._dial(path, address)
        except OSError as error:
            raise LinkError(f"could not open a link to {path}: {type(error).__name__}: {error}") from error

    async def _dial(self, path: str, address: str) -> Link:
        session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(address, limit=0), timeout=aiohttp.ClientTimeout(total=None)
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._open(session)
        except TimeoutError:
            await session.close()
            raise NoAnswerError(f"no answer came from {path} for {self._timeout_s:g} s") from None
        except (aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            await session.close()
            if isinstance(error, OSError) and allow_more_after(error):
                return await self._dial(path, address)
            raise LinkError(f"could not open a link to {path}: {type(error).__name__}: {error}") from error
        except BaseException:
            await session.close()
            raise

    async def _open(self, session: aiohttp.ClientSession) -> Link:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()

        async def body() -> AsyncIterator[bytes]:
            yield encode_hello(self._hello)
            await done

        response = await session.post("http://actorrt/link", data=body())
        try:
            if response.status != 200:
                raise LinkError(await response.text())
            theirs = await _read_hello(response.content)
            if theirs.refused:
                raise RefusedError(theirs.refused)
            connection = response.connection
            if connection is None or connection.transport is None or connection.protocol is None:
                raise LinkError("the peer closed the link while it opened")
            link = Link(loop, self._receiver, theirs, connection.transport, (session, response, done))
        except BaseException:
            done.cancel()
            response.close()
            raise
        connection.protocol.set_parser(link, response.content)
        connection.transport.set_protocol(_Reader(link, connection.protocol))
        link.greet()
        loop.create_task(_close_session_after(link, session, response, done))
        return link


async def _close_session_after(
    link: Link, session: aiohttp.ClientSession, response: aiohttp.ClientResponse, done: asyncio.Future[None]
) -> None:
    await link.gone.wait()
    if not done.done():
        done.cancel()
    response.close()
    await session.close()


class Acceptor:
    """Accepts links at a Unix socket. `admit(hello)` may refuse with a sentence."""

    def __init__(
        self, receiver: Receiver, hello: Hello, admit: Callable[[Hello], str], opened: Callable[[Link], None]
    ) -> None:
        self._receiver = receiver
        self._hello = hello
        self._admit = admit
        self._opened = opened
        self._runner: Any = None

    async def listen(self, path: str) -> None:
        from aiohttp import web

        runner = web.ServerRunner(web.Server(self._handle, access_log=None, handler_cancellation=True))
        await runner.setup()
        with reachable(path) as address:
            await web.UnixSite(runner, address).start()
        os.chmod(path, 0o600)
        self._runner = runner

    async def _handle(self, request: Any) -> Any:
        from aiohttp import web

        try:
            theirs = await asyncio.wait_for(_read_hello(request.content), HELLO_TIMEOUT_S)
        except (ConnectionError, TimeoutError, LinkError, aiohttp.ClientError, msgspec.DecodeError):
            # Somebody only looked whether this process listens, or speaks something else.
            return web.Response(status=400)
        refused = why_refused(self._hello, theirs) or self._admit(theirs)
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        mine = self._hello
        if refused:
            mine = Hello(mine.process, mine.role, mine.pid, mine.protocol, mine.python, mine.version, refused)
            await response.write(encode_hello(mine))
            await response.write_eof()
            return response
        loop = asyncio.get_running_loop()
        link = Link(loop, self._receiver, theirs, request.transport, (request, response))
        request.protocol.set_parser(link)
        request.transport.set_protocol(_Reader(link, request.protocol))
        # It counts from the first frame on: a dialler that has given up meanwhile never sends one.
        link.hold(self._opened)
        await response.write(encode_hello(mine))
        await link.gone.wait()
        return response

    def abandon(self) -> None:
        """Close the socket that a fork has inherited, and nothing that belongs to its parent."""
        if self._runner is not None:
            for site in self._runner.sites:
                for listening in site._server.sockets:
                    let_go(listening.fileno())

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
