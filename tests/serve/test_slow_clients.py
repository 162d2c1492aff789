"""Clients that send or read slowly: who is cut off, what they hold, and that they stop nobody else.

The protocol's clock is not waited for: what a sweep does is asked at times that are made up.
"""

import asyncio
import resource
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from actorrt import serve
from actorrt.runtime.links.pipes import FIRST_ROOM
from actorrt.serve.proxy.connection_phase import Phase
from actorrt.serve.proxy.http_request import HttpRequest

from .asgi_servers import connected
from .conftest import Serving
from .exchange import read, write
from .test_http_protocol import GET, Server, count_body, on_uvloop
from .test_http_protocol import serving as protocol

POST = b"POST / HTTP/1.1\r\nhost: x\r\n"
LONG = POST + b"content-length: 100000\r\n\r\n"
CHUNKED = POST + b"transfer-encoding: chunked\r\n\r\n"


async def until(true: Callable[[], object]) -> None:
    while not true():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def only(server: Server) -> Any:
    (connection,) = server.front.connections
    return connection


def in_head(server: Server) -> bool:
    return only(server)._phase is Phase.HEAD


class Drips:
    """A client that sends its body at a rate, in the protocol's own time."""

    def __init__(self, server: Server, chunked: bool) -> None:
        # No sweep but ours.
        server.front.stop()
        self.connection = only(server)
        self.now = server.front.clock()
        self._chunked = chunked

    async def go_on(self, rate: int, seconds: int) -> None:
        for _ in range(seconds):
            if self.connection._turns.reading is None:
                return
            self.now += 1
            part = b"%x\r\n%b\r\n" % (rate, bytes(rate)) if self._chunked else bytes(rate)
            self.connection.data_received(part)
            for _ in range(3):
                await asyncio.sleep(0)  # what has come is read
            self.connection._deadline = self.now + 10  # as of this clock
            self.connection.sweep(self.now)


@on_uvloop
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("first", [0, 50_000])
async def test_a_body_that_comes_at_less_than_the_least_rate_is_refused(chunked: bool, first: int) -> None:
    async with protocol(count_body, least_body_rate=1000) as server:
        client = await server.connect()
        client.send(CHUNKED if chunked else LONG)
        await until(
            lambda: server.front.connections and only(server)._turns.reading and only(server)._phase is not Phase.HEAD
        )
        body = Drips(server, chunked)
        if first:
            await body.go_on(first // 5, 5)  # to begin with a good deal buys no time for later
        await body.go_on(900, 25)
        status, _, text = await client.answer()
        assert (status, text) == (408, b"the body of the request came at less than 1000 bytes a second")
        assert await client.closed()


@on_uvloop
@pytest.mark.parametrize(("rate", "least"), [(1100, 1000), (1, 0)])
async def test_a_body_that_comes_at_the_least_rate_comes_to_its_end(rate: int, least: int) -> None:
    async with protocol(count_body, least_body_rate=least) as server:
        client = await server.connect()
        client.send(LONG)
        await until(
            lambda: server.front.connections and only(server)._turns.reading and only(server)._phase is not Phase.HEAD
        )
        body = Drips(server, chunked=False)
        await body.go_on(rate, 50)
        client.send(bytes(100_000 - 50 * rate))
        assert (await client.answer())[::2] == (200, b"100000")


@on_uvloop
async def test_what_was_slow_in_a_conversation_does_not_count_once_the_response_has_ended() -> None:
    begin, end = asyncio.Event(), asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        if request.method == b"GET":
            request.respond(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnext")
            return
        await begin.wait()
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
        await end.wait()
        request.respond(b"end")

    async with protocol(handler, least_body_rate=1000) as server:
        client = await server.connect()
        client.send(CHUNKED, b"1\r\na\r\n")
        await until(lambda: server.front.connections and only(server)._turns.current)
        body = Drips(server, chunked=True)
        await body.go_on(1100, 2)
        begin.set()
        await until(lambda: only(server)._turns.current.is_begun)
        await body.go_on(10, 60)
        end.set()
        assert (await client.answer())[::2] == (200, b"end")
        await body.go_on(1100, 25)
        client.send(b"0\r\n\r\n", GET)
        assert (await client.answer())[::2] == (200, b"next")


@on_uvloop
async def test_a_conversation_may_be_slow_once_the_response_has_begun() -> None:
    async def handler(request: HttpRequest) -> None:
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n")
        while await read(request):
            pass
        request.respond(b"end")

    async with protocol(handler) as server:
        client = await server.connect()
        client.send(CHUNKED)
        assert (await client.head())[0] == 200
        await Drips(server, chunked=True).go_on(1, 100)
        client.send(b"0\r\n\r\n")
        assert await client.reader.readexactly(3) == b"end"


@on_uvloop
async def test_the_time_in_which_nobody_reads_a_body_does_not_count_for_its_rate() -> None:
    may_read = asyncio.Event()

    async def handler(request: HttpRequest) -> None:
        await may_read.wait()
        await count_body(request)

    async with protocol(handler, body_window_bytes=80_000) as server:
        client = await server.connect()
        client.send(LONG, bytes(90_000))
        await until(lambda: server.front.connections and only(server).flow.read_paused)
        server.front.stop()
        for later in range(0, 1000, 9):
            only(server).sweep(server.front.clock() + later)
        may_read.set()
        client.send(bytes(10_000))
        assert (await client.answer())[::2] == (200, b"100000")


@on_uvloop
async def test_a_long_body_gets_no_place_before_a_first_window_of_it_is_there() -> None:
    async with protocol(count_body, body_window_bytes=80_000) as server:
        client = await server.connect()
        server.front.stop()
        client.send(LONG, bytes(79_999))
        await until(lambda: server.front.connections and only(server)._body_came == 79_999)
        assert server.backend.seen == []
        client.send(b"x")
        await until(lambda: server.backend.seen)
        client.send(bytes(20_000))
        assert (await client.answer())[::2] == (200, b"100000")
        # All of one that is shorter than a window, and one that waits behind another.
        server.front.options = server.front.options.__class__(body_window_bytes=200_000)
        client = await server.connect()
        client.send(GET, LONG, bytes(99_999))
        assert (await client.answer())[0] == 200
        before = len(server.backend.seen)
        client.send(b"x")
        assert (await client.answer())[::2] == (200, b"100000")
        assert len(server.backend.seen) == before + 1


@on_uvloop
async def test_who_sends_the_rest_of_a_body_only_once_it_is_answered_gets_a_place_after_a_while() -> None:
    async def handler(request: HttpRequest) -> None:
        first = await read(request)
        write(request, b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(first) + 3, first))
        while await read(request):
            pass
        request.respond(b"end")

    async with protocol(handler, request_read_timeout_s=0.4) as server:
        client = await server.connect()
        client.send(LONG, b"first")
        assert await client.head() == (200, {"content-length": "8"})
        assert await client.reader.readexactly(5) == b"first"
        client.send(bytes(99_995))
        assert await client.reader.readexactly(3) == b"end"


@on_uvloop
async def test_a_client_that_reads_a_little_is_not_one_that_reads_nothing() -> None:
    async def handler(request: HttpRequest) -> None:
        request.respond(b"HTTP/1.1 200 OK\r\ncontent-length: 20000000\r\n\r\n" + bytes(20_000_000))

    async with protocol(handler, stalled_client_timeout_s=60) as server:
        loop = asyncio.get_running_loop()
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
            client.setblocking(False)
            await loop.sock_connect(client, ("127.0.0.1", server.port))
            await loop.sock_sendall(client, GET)
            await until(lambda: server.front.connections and only(server).transport.get_write_buffer_size())
            server.front.stop()
            connection = only(server)
            now = server.front.clock()
            connection.sweep(now)
            for _ in range(10):
                # It takes less than what would make the socket writable again: this process holds as much as before.
                acknowledged, taken = connection._acknowledged, 0
                connection.sweep(now := now + 50)
                while connection._acknowledged == acknowledged:
                    taken += len(await loop.sock_recv(client, 4096))
                    connection._has_taken()
                connection._acknowledged = acknowledged  # as the sweep before saw it
                connection.sweep(now := now + 50)
                assert not connection.transport.is_closing()
            connection.sweep(now + 1)
            connection.sweep(now + 62)
            assert connection.transport.is_closing()


@on_uvloop
async def test_two_thousand_clients_that_read_nothing_are_held_to_their_rooms() -> None:
    many = 2000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 2 * many + 200)), hard))
    room = 32 * 1024
    part = memoryview(bytes(room))
    full: list[HttpRequest] = []

    async def handler(request: HttpRequest) -> None:
        connection: Any = request.connection
        connection.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        while request.pass_on(part):  # noqa: ASYNC110
            await asyncio.sleep(0)
        full.append(request)

    async with protocol(handler, stalled_client_timeout_s=1000) as server:
        with ExitStack() as stack:
            loop = asyncio.get_running_loop()
            for _ in range(many):
                client = stack.enter_context(closing(socket.socket()))
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                client.setblocking(False)
                await loop.sock_connect(client, ("127.0.0.1", server.port))
                await loop.sock_sendall(client, GET)
            await until(lambda: len(full) == many)
            held = [each.transport.get_write_buffer_size() for each in server.front.connections]
            assert len(held) == many
            # Where the transport says that it is enough, and one part more.
            assert max(held) <= 64 * 1024 + room
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# Of a deployment with the places that it has by default.

LARGE = 20_000_000


@serve.deployment
class Sizes:
    async def __call__(self, request: Request) -> Any:
        if size := request.query_params.get("size"):
            return Response(bytes(int(size)))
        return f"read {len(await request.body())}"


@pytest.fixture
def sizes(serving: Serving) -> str:
    return serving.run(Sizes.bind(), "sizes")


def _slow(url: str, kind: str) -> Iterator[socket.socket]:
    for _ in range(5):
        match kind:
            case "sender":
                yield connected(url, b"POST PREFIX HTTP/1.1\r\nhost: x\r\ncontent-length: 70000\r\n\r\nx")
            case "sender of chunks":
                yield connected(url, b"POST PREFIX HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
            case _:
                yield connected(url, b"GET PREFIX?size=%d HTTP/1.1\r\nhost: x\r\n\r\n" % LARGE)


@pytest.mark.parametrize("kind", ["sender", "sender of chunks", "reader"])
def test_five_slow_clients_stop_no_deployment(serving: Serving, sizes: str, kind: str) -> None:
    with ExitStack() as stack:
        slow = [stack.enter_context(closing(each)) for each in _slow(sizes, kind)]
        if kind == "reader":
            for each in slow:
                assert each.recv(12) == b"HTTP/1.1 200"
        assert serving.client.get(sizes).text == "read 0"
        if kind == "reader":
            # They get all of it when they go on.
            for each in slow:
                head = b""
                while b"\r\n\r\n" not in head:
                    head += each.recv(1)
                left = LARGE
                while left:
                    left -= len(each.recv(min(left, 1 << 20)))


def test_what_is_in_flight_to_a_slow_reader_is_one_room() -> None:
    assert FIRST_ROOM <= 512 * 1024
