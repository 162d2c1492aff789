# pyright: basic, reportMissingImports=false
"""The bare aiohttp link: what one full-duplex HTTP stream between two processes carries, with nothing on top.

Two processes, a Unix socket, one POST whose request and response bodies both stay open. A frame is its length (4 bytes)
and a msgpack list of (id, payload); all that is ready when the writer runs leaves in one frame. Each call's arguments
and result are pickled; the server runs a coroutine of its own per call. No errors, no ownership, no reconnection: a
limit of the machine with these libraries, not a system. Run as `python -m loadtests.limits.aiohttp_link serve SOCKET`
it is the other end.
"""

import asyncio
import os
import pickle
import struct
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from contextlib import contextmanager

import aiohttp
import msgspec
import uvloop
from aiohttp import web

from loadtests.peers.contract import Calls

_LENGTH = struct.Struct("<I")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder().decode


class Outbox:
    """Collects messages and hands all that are there to `send` each time its task gets to run."""

    def __init__(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        self._waiting: list[tuple[int, bytes]] = []
        self._filled = asyncio.Event()
        self._send = send
        self.task = asyncio.ensure_future(self._run())

    def add(self, message: tuple[int, bytes]) -> None:
        self._waiting.append(message)
        if len(self._waiting) == 1:
            self._filled.set()

    async def _run(self) -> None:
        while True:
            await self._filled.wait()
            self._filled.clear()
            batch, self._waiting = self._waiting, []
            frame = _encode(batch)
            await self._send(_LENGTH.pack(len(frame)) + frame)


async def messages(stream: aiohttp.StreamReader) -> AsyncIterator[tuple[int, bytes]]:
    rest = b""
    async for piece in stream.iter_any():
        rest = rest + piece if rest else piece
        at = 0
        while len(rest) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(rest, at)
            begin = at + _LENGTH.size
            if len(rest) - begin < length:
                break
            for message in _decode(rest[begin : begin + length]):
                yield message
            at = begin + length
        rest = rest[at:]


async def small_value(payload: bytes) -> bytes:
    pickle.loads(payload)
    return b"ok"


async def answer(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    response.enable_chunked_encoding()
    await response.prepare(request)
    outbox = Outbox(response.write)

    async def run(number: int, payload: bytes) -> None:
        outbox.add((number, pickle.dumps(await small_value(payload))))

    async for number, payload in messages(request.content):
        asyncio.ensure_future(run(number, payload))
    outbox.task.cancel()
    return response


async def serve(path: str) -> None:
    application = web.Application(client_max_size=0)
    application.router.add_post("/link", answer)
    runner = web.AppRunner(application, access_log=None)
    await runner.setup()
    await web.UnixSite(runner, path).start()
    print("ready", flush=True)
    await asyncio.Event().wait()


class Client:
    """The calling end; everything happens on one loop, that of the caller."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._pending: dict[int, asyncio.Future[object]] = {}
        self._number = 0
        self._frames: asyncio.Queue[bytes] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._outbox = Outbox(self._frames.put)
        self._reader = asyncio.ensure_future(self._read(session))

    async def _body(self) -> AsyncIterator[bytes]:
        while True:
            yield await self._frames.get()

    async def _read(self, session: aiohttp.ClientSession) -> None:
        async with session.post("http://link/link", data=self._body()) as response:
            async for number, payload in messages(response.content):
                self._pending.pop(number).set_result(pickle.loads(payload))

    def call(self, *arguments: object) -> asyncio.Future[object]:
        self._number += 1
        future = self._pending[self._number] = self._loop.create_future()
        self._outbox.add((self._number, pickle.dumps(("small_value", arguments))))
        return future

    async def close(self) -> None:
        for task in (self._outbox.task, self._reader):
            task.cancel()
        await asyncio.gather(self._outbox.task, self._reader, return_exceptions=True)


@contextmanager
def calls(name: str) -> Generator[Calls]:
    folder = tempfile.TemporaryDirectory(prefix="link-")
    path = os.path.join(folder.name, "s")
    command = [sys.executable, "-m", "loadtests.limits.aiohttp_link", "serve", path]
    with folder, subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        server.stdout.readline()
        loop = uvloop.new_event_loop()
        asyncio.set_event_loop(loop)

        async def connect() -> tuple[aiohttp.ClientSession, Client]:
            session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path), timeout=aiohttp.ClientTimeout(total=None)
            )
            return session, Client(session)

        session, client = loop.run_until_complete(connect())

        async def one_at_a_time(n: int) -> None:
            for _ in range(n):
                await client.call()

        async def in_flight(n: int) -> None:
            await asyncio.gather(*[client.call() for _ in range(n)])

        try:
            yield Calls(
                lambda n: loop.run_until_complete(one_at_a_time(n)),
                lambda n: loop.run_until_complete(in_flight(n)),
            )
        finally:
            loop.run_until_complete(client.close())
            loop.run_until_complete(session.close())
            server.kill()


if __name__ == "__main__" and sys.argv[1:2] == ["serve"]:
    uvloop.run(serve(sys.argv[2]))
